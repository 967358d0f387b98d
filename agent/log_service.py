"""Answers requests for captured output, also of units that are over."""

import asyncio
from types import TracebackType

import structlog

from agent.control_folder import ControlFolder
from agent.desired import UnitKey
from agent.output_log import OutputReader
from agent.units import Units
from headrace.api.generated import nodes_pb2

LOOK_AGAIN_SECONDS = 0.25
"""How often a followed unit is asked for more."""
ANSWERS_WAITING = 64
"""Pieces that may wait for the connection; a slow reader slows only the reading."""

_log = structlog.get_logger(__name__)


class LogService:
    """Answers over one connection; leaving it ends all requests."""

    def __init__(self, units: Units, node: str) -> None:
        self._units = units
        self._node = node
        self._open: dict[str, asyncio.Task[None]] = {}
        self.answers: asyncio.Queue[nodes_pb2.ServeLogsRequest] = asyncio.Queue(ANSWERS_WAITING)

    async def __aenter__(self) -> "LogService":
        await self.answers.put(nodes_pb2.ServeLogsRequest(node=self._node))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = list(self._open.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def ask(self, request: nodes_pb2.ServeLogsResponse) -> None:
        """Begins or cancels an answer."""
        known = self._open.get(request.request_id)
        if request.cancel:
            if known is not None:
                known.cancel()
            return
        if known is None:
            task = asyncio.create_task(self._answer(request))
            self._open[request.request_id] = task
            task.add_done_callback(lambda _: self._open.pop(request.request_id, None))

    async def _answer(self, request: nodes_pb2.ServeLogsResponse) -> None:
        attempt = request.attempt or self._units.latest_attempt(request.uid)
        try:
            note = await self._send(request, attempt)
        except OSError as error:
            note = f"the output cannot be read on node {self._node}: {error.strerror}"
            _log.warning("output_unreadable", uid=request.uid, error=str(error))
        await self.answers.put(
            nodes_pb2.ServeLogsRequest(
                node=self._node,
                request_id=request.request_id,
                attempt=attempt,
                done=True,
                note=note,
            )
        )

    async def _send(self, request: nodes_pb2.ServeLogsResponse, attempt: int) -> str:
        """Sends what there is, and what comes if that is wanted; returns the closing note."""
        key = UnitKey(request.uid, attempt, request.unit)
        if "/" in request.uid or request.uid in ("", ".", ".."):
            return f"{request.uid!r} is no uid of a job"
        folder = ControlFolder(self._units.folder, key).path
        if not folder.is_dir():
            return (
                f"node {self._node} has no output of unit {request.unit} of attempt {attempt}; "
                "output of old attempts is removed after a while"
            )
        reader = OutputReader(folder)
        reader.seek_tail(request.tail_lines)
        while True:
            more = request.follow and self._units.alive(key)
            for piece in reader.pieces():
                data = piece.data
                if piece.dropped:
                    mark = f"[headrace: {piece.dropped} bytes of output were not kept]\n"
                    data = mark.encode() + data
                await self.answers.put(
                    nodes_pb2.ServeLogsRequest(
                        node=self._node,
                        request_id=request.request_id,
                        data=data,
                        attempt=attempt,
                    )
                )
            if not more:
                return ""
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
