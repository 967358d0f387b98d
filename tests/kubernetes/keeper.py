"""One cluster for all workers of a test run, kept by a process of its own.

Whoever wants the cluster holds a connection to its keeper. When the last one is closed, which the
kernel does for those that are killed, the keeper ends the cluster and itself. Were the cluster a
child of the worker that happens to want it first, the others would lose it with that worker.

The first connection is one end of a socket pair that the keeper inherits; others come by an address
in a file. Each line sent asks for a tier, and is answered with a line of JSON.
"""

import contextlib
import fcntl
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.control_plane import ControlPlane, NotStartedError

_TIERS = ("1", "2")
_BADGE = "HEADRACE_TEST"  # of tests/conftest.py: marks what must be gone when one worker is done
_ENDING_SECONDS = 30.0
_LINE_BYTES = 65_536


class SharedCluster:
    """A worker's hold on the cluster of the whole run; made by ``join``."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("r", encoding="utf-8")
        try:
            told = self._ask("1")
        except BaseException:
            self._close()
            raise
        self.folder = Path(told["folder"])
        self.api_server = ApiServer(
            Path(told["kubeconfig"]), self.folder, authority=Path(told["authority"])
        )

    @classmethod
    def join(cls, run: Path) -> Self:
        """Joins the cluster of a test run, and has it started if there is none.

        Args:
            run: A folder that all workers of the run see, and no other run.

        Raises:
            NotStartedError: If it did not start.
        """
        with _only_one(run / "kubernetes.lock"):
            address = run / "kubernetes.address"
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(address.read_text(encoding="utf-8"))
            except OSError:  # there never was a keeper, or it is gone
                connection.close()
                return cls(_new_keeper(address))
            try:
                return cls(connection)
            except _NobodyThereError:  # it was just ending
                return cls(_new_keeper(address))

    def start_fake_nodes(self) -> dict[str, int]:
        """Has scheduler and kwok started; the pids of all that runs."""
        return dict(self._ask("2")["pids"])

    @property
    def pids(self) -> dict[str, int]:
        """The pids of all that runs, by name; that of the keeper too."""
        return dict(self._ask("1")["pids"])

    def leave(self) -> None:
        """Lets go, and if nobody else holds the cluster waits until it is gone."""
        self.api_server.close()
        self._connection.shutdown(socket.SHUT_WR)
        self._connection.settimeout(_ENDING_SECONDS)
        with contextlib.suppress(ConnectionError):
            while self._connection.recv(_LINE_BYTES):
                pass
        self._close()

    def _close(self) -> None:
        self._lines.close()
        self._connection.close()

    def _ask(self, tier: str) -> dict[str, Any]:
        self._connection.sendall(f"{tier}\n".encode())
        line = self._lines.readline()
        if not line:
            raise _NobodyThereError("the keeper of the cluster has ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise NotStartedError(answer["error"])
        return answer


class _NobodyThereError(NotStartedError):
    """The keeper was just ending, or was killed."""


@contextlib.contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _new_keeper(address: Path) -> socket.socket:
    ours, its = socket.socketpair()
    with its, address.with_suffix(".log").open("ab") as log:
        # It forks and its first process returns, so that it is no child of this worker.
        subprocess.run(
            [sys.executable, "-m", "tests.kubernetes.keeper", str(address), str(its.fileno())],
            cwd=Path(__file__).parents[2],
            env={name: value for name, value in os.environ.items() if name != _BADGE},
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=True,
        )
    return ours


class _Keeper:
    """Starts the cluster when first asked, and serves until nobody is connected."""

    def __init__(self, control_plane: ControlPlane, listening: socket.socket) -> None:
        self._control_plane = control_plane
        self._listening = listening
        self._selector = selectors.DefaultSelector()
        self._selector.register(listening, selectors.EVENT_READ)
        self._connected: set[socket.socket] = set()
        self._last: socket.socket | None = None
        self._tier = 0

    def add(self, connection: socket.socket) -> None:
        self._connected.add(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def serve(self) -> None:
        while self._connected:
            for key, _ in self._selector.select():
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj is self._listening:
                    self.add(self._listening.accept()[0])
                else:
                    self._hear(key.fileobj)

    def _hear(self, connection: socket.socket) -> None:
        try:
            # One question is out at a time, so what comes at once is one line.
            heard = connection.recv(_LINE_BYTES).decode()
            if heard:
                connection.sendall((json.dumps(self._answer(heard.strip())) + "\n").encode())
                return
        except ConnectionError:
            pass
        self._selector.unregister(connection)
        self._connected.remove(connection)
        if self._connected:
            connection.close()
        else:
            self._last = connection  # closed by our end, which tells it that all is gone

    def _answer(self, tier: str) -> dict[str, Any]:
        try:
            self._start(_TIERS.index(tier) + 1)
            self._control_plane.check()
        # Whatever it is, the test that asked should show it.
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        api_server = self._control_plane.api_server
        return {
            "folder": str(api_server.folder),
            "kubeconfig": str(api_server.kubeconfig),
            "authority": str(self._control_plane.authority),
            "pids": {**self._control_plane.pids, "keeper": os.getpid()},
        }

    def _start(self, tier: int) -> None:
        if self._tier < 1:
            self._control_plane.start()
            self._tier = 1
        if self._tier < tier:
            self._control_plane.start_fake_nodes()
            self._tier = tier


def _keep(address: Path, first: socket.socket) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="headrace-kube-", ignore_cleanup_errors=True) as folder,
        socket.socket(socket.AF_UNIX) as listening,
    ):
        # A path of a socket has at most 107 bytes, and pytest's folders may lie deep.
        path = f"{folder}/keeper"
        listening.bind(path)
        listening.listen()
        address.write_text(path, encoding="utf-8")
        control_plane = ControlPlane(Path(folder))
        try:
            keeper = _Keeper(control_plane, listening)
            keeper.add(first)
            keeper.serve()
        finally:
            control_plane.stop()


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    os.setsid()
    _keep(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
