"""Captured output on its way from a node's agent to a reader.

Every agent holds one stream open (``ServeLogs``); readers' requests go out over it and the answers
of all of them come in mixed. What comes in is put into the reader's own bounded buffer at once, so
a reader who is slow loses output (and is told how much) and holds nobody up.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from controlplane.domain.ids import Attempt, JobUid, NodeId
from controlplane.edges.grpc_server.errors import unavailable
from headrace.api.generated import nodes_pb2

_BUFFER_BYTES = 8 * 2**20
_READERS_MOST = 256
_REQUESTS_MOST = 1024


@dataclass(frozen=True, slots=True)
class LogRequest:
    """Whose output is wanted, and how much of it."""

    uid: JobUid
    attempt: Attempt
    unit: int
    tail_lines: int
    follow: bool


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Some output, or a note about it."""

    data: bytes = b""
    note: str = ""


class _Reader:
    """One reader's buffer."""

    def __init__(self) -> None:
        self._pieces: deque[LogPiece] = deque()
        self._bytes = 0
        self._skipped = 0
        self._woken = asyncio.Event()
        self.done = False

    def put(self, piece: LogPiece, *, done: bool) -> None:
        if self._bytes + len(piece.data) > _BUFFER_BYTES:
            self._skipped += len(piece.data)
        elif piece.data or piece.note:
            self._pieces.append(piece)
            self._bytes += len(piece.data)
        self.done = self.done or done
        self._woken.set()

    async def pieces(self) -> AsyncIterator[LogPiece]:
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._bytes -= len(piece.data)
                yield piece
            if self._skipped:
                note = f"{self._skipped} bytes were skipped: they came faster than they were read"
                self._skipped = 0
                yield LogPiece(note=note)
                continue
            if self.done:
                return
            self._woken.clear()
            await self._woken.wait()


class LogChannel:
    """One agent's open stream."""

    def __init__(self) -> None:
        self._requests: asyncio.Queue[nodes_pb2.ServeLogsResponse | None] = asyncio.Queue(
            _REQUESTS_MOST
        )
        self._readers: dict[str, _Reader] = {}

    async def requests(self) -> AsyncIterator[nodes_pb2.ServeLogsResponse]:
        """What the agent is asked, until the channel is closed."""
        while (request := await self._requests.get()) is not None:
            yield request

    def send(self, request: nodes_pb2.ServeLogsResponse) -> bool:
        """Asks the agent; False if it does not take what it was asked before."""
        try:
            self._requests.put_nowait(request)
        except asyncio.QueueFull:
            return False
        return True

    def answered(self, answer: nodes_pb2.ServeLogsRequest) -> None:
        """Gives an answer to its reader; one for a reader who went away falls through."""
        reader = self._readers.get(answer.request_id)
        if reader is not None:
            reader.put(LogPiece(answer.data, answer.note), done=answer.done)

    def add(self, request_id: str, reader: _Reader) -> None:
        """A reader waits for the answers to ``request_id``."""
        self._readers[request_id] = reader

    def remove(self, request_id: str) -> None:
        """The reader went away."""
        self._readers.pop(request_id, None)

    def close(self, note: str) -> None:
        """The agent went away; every reader is told."""
        for reader in self._readers.values():
            reader.put(LogPiece(note=note), done=True)
        self._readers.clear()
        while self._requests.full():
            self._requests.get_nowait()
        self._requests.put_nowait(None)


class LogBroker:
    """Brings readers and agents together."""

    def __init__(self) -> None:
        self._channels: dict[NodeId, LogChannel] = {}
        self._readers = 0
        self._asked = 0

    def connect(self, node: NodeId) -> LogChannel:
        """An agent opened its stream; an earlier one of the same node is over."""
        earlier = self._channels.get(node)
        if earlier is not None:
            earlier.close(f"the agent of {node} connected anew")
        channel = self._channels[node] = LogChannel()
        return channel

    def disconnect(self, node: NodeId, channel: LogChannel) -> None:
        """The agent's stream ended."""
        channel.close(f"the agent of {node} went away; its output is kept there")
        if self._channels.get(node) is channel:
            del self._channels[node]

    def close(self) -> None:
        """The process stops."""
        for channel in self._channels.values():
            channel.close("the control plane stops; ask again")
        self._channels.clear()

    async def read(self, node: NodeId, wanted: LogRequest) -> AsyncGenerator[LogPiece, None]:
        """The output as it comes.

        Raises:
            RefusedError: UNAVAILABLE: too many readers.
        """
        channel = self._channels.get(node)
        if channel is None:
            yield LogPiece(note=f"node {node} is not connected; its output is kept there")
            return
        if self._readers >= _READERS_MOST:
            raise unavailable(f"{_READERS_MOST} readers follow logs already; try again later")
        self._asked += 1
        request_id = f"r{self._asked}"
        reader = _Reader()
        channel.add(request_id, reader)
        self._readers += 1
        try:
            asked = channel.send(
                nodes_pb2.ServeLogsResponse(
                    request_id=request_id,
                    uid=wanted.uid,
                    attempt=wanted.attempt,
                    unit=wanted.unit,
                    tail_lines=wanted.tail_lines,
                    follow=wanted.follow,
                )
            )
            if not asked:
                raise unavailable(f"the agent of {node} answers no requests for logs; try again")
            async for piece in reader.pieces():
                yield piece
        finally:
            self._readers -= 1
            channel.remove(request_id)
            if not reader.done:
                channel.send(nodes_pb2.ServeLogsResponse(request_id=request_id, cancel=True))
