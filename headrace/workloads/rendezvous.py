"""How the ranks of one attempt find each other, and agree before anyone touches a GPU.

Unit 0 binds a plain socket and publishes it before torch is even imported, so that the other units
are started meanwhile; torch's TCPStore then takes that socket over. Every rank checks that the
store belongs to its own attempt. Until rank 0 says ``go``, any rank can refuse or stop, and all
end, for the same reason: or, if that is of one node, as those that lost the rank there.

A unit that joins ranks which train already stands outside until rank 0 takes it in: until then
nothing that happens to it is a failure of theirs. See ``training.joining``.
"""

import contextlib
import json
import socket
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from headrace.workloads.control import Launch, StopSignal
from headrace.workloads.refusal import (
    FENCED,
    MAY_BE_THE_NODE,
    RANK_LOST,
    START_REFUSED,
    StoppedBeforeTraining,
    WorkloadError,
)

if TYPE_CHECKING:
    from torch.distributed import Store

CONNECT_SECONDS = 300.0
GATHER_SECONDS = 900.0
LINGER_SECONDS = 3.0
LINGER_FOR_LATECOMERS_SECONDS = 30.0
_STORE_TIMEOUT = timedelta(seconds=120)
_HANDSHAKE_TIMEOUT = timedelta(seconds=15)
_POLL_SECONDS = 0.05
_REFUSALS_MAX = 10


class RankGoneError(Exception):
    """Another rank, or the rendezvous, cannot be reached any more."""


def bind(host: str, port: int = 0) -> socket.socket:
    """A listening socket on a port of ``host``; 0 for any that is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise WorkloadError(
            START_REFUSED,
            f"the rendezvous cannot be bound on {host}: {error}; the agent's address must be one "
            "of this node's own",
        ) from error


def address_of(bound: socket.socket) -> str:
    """host:port, the host in brackets if it holds colons."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """Host and port of what ``address_of`` wrote."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise WorkloadError(
            START_REFUSED, f"wanted the rendezvous as host:port, got {address!r} from the agent"
        )
    return host.strip("[]"), int(port)


class Rendezvous:
    """The ranks' common notice board.

    Attributes:
        store: The board itself.
        rank: This rank; it never changes.
        ranks: Number of ranks.
        newcomer: The unit of this process while it stands outside; None once it is one of the
            ranks.
    """

    def __init__(
        self,
        store: "Store",
        *,
        rank: int,
        ranks: int,
        prefix: str,
        stop: StopSignal,
        newcomer: int | None = None,
    ) -> None:
        from torch.distributed import PrefixStore

        self.store = PrefixStore(prefix, store)
        self.rank = rank
        self.ranks = ranks
        self.newcomer = newcomer
        self._stop = stop
        self._base = store  # a prefixed store does not keep the server alive
        self._together = False
        self._dead: set[int] = set()
        self.store.add("arrived", 1)

    # -- coming together ------------------------------------------------------------------

    def put(self, key: str, value: object) -> None:
        """Post a value."""
        self.store.set(key, json.dumps(value))

    def get(self, key: str) -> Any:
        """A value that is known to be there."""
        return json.loads(self.store.get(key))

    def find(self, key: str) -> Any:
        """A value; None if it is not there."""
        return self.get(key) if self.store.check([key]) else None

    def take_down(self, key: str) -> None:
        """Remove a value."""
        self.store.delete_key(key)

    def await_start(self, key: str) -> Any:
        """A value of the time before ``go``; gives way to a stop and to another's refusal."""
        deadline = time.monotonic() + GATHER_SECONDS
        while not self.store.check([key]):
            if self.store.check(["go"]):
                self._obey(self.get("go"))
                if key != "go" and self._stop.asked():
                    # The others train, so what this unit waits for does not come any more.
                    raise StoppedBeforeTraining
            self._give_way()
            if time.monotonic() > deadline:
                raise WorkloadError(
                    RANK_LOST, f"rank 0 did not come as far as {key!r} in {GATHER_SECONDS:.0f} s"
                )
        return self.get(key)

    def answers(self, key: str) -> list[Any]:
        """What the ranks other than 0 have posted under ``key``; nothing of one that refused."""
        deadline = time.monotonic() + GATHER_SECONDS
        found = []
        for rank in range(1, self.ranks):
            while not self.store.check([f"{key}/{rank}"]):
                if self.store.check([f"joined/{rank}"]):
                    break
                if self._stop.asked() or self.store.check(["stopping"]):
                    self.put("go", {"do": "stop"})
                    raise StoppedBeforeTraining
                if time.monotonic() > deadline:
                    raise WorkloadError(
                        RANK_LOST, f"rank {rank} gave no {key} in {GATHER_SECONDS:.0f} s"
                    )
                self._stop.wait_seconds(_POLL_SECONDS)
            else:
                found.append(self.get(f"{key}/{rank}"))
        return found

    def refuse(self, code: str, message: str) -> None:
        """Post this rank's refusal, so that all ranks end with it; or stay, without a newcomer."""
        if self.newcomer is not None:
            self.put(f"ready/{self.rank}", {"unit": self.newcomer, "refused": message})
            return
        self.put(f"joined/{self.rank}", {"code": code, "message": message})
        if self.rank == 0 and not self.store.check(["go"]):
            self.put("go", {"do": "fail", "rank": 0, "code": code, "message": message})

    def agree(self, facts: dict[str, object]) -> None:
        """Wait until every rank is ready and of one mind; facts must be equal on all ranks.

        Raises:
            WorkloadError: A rank refused.
            StoppedBeforeTraining: A stop was asked for in time.
        """
        self.put(f"joined/{self.rank}", {"facts": facts})
        if self.rank == 0:
            self.put("go", self._verdict(facts))
        self._obey(self.await_start("go"))
        self._together = True

    def end_together(self) -> None:
        """End without training, once all have heard what was agreed."""
        if self.rank != 0:
            self.put(f"heard/{self.rank}", None)
            return
        with contextlib.suppress(Exception):  # one that dies now has nothing left to do either
            self.store.wait([f"heard/{rank}" for rank in range(1, self.ranks)])

    def _verdict(self, facts: dict[str, object]) -> dict[str, object]:
        deadline = time.monotonic() + GATHER_SECONDS
        missing = set(range(self.ranks))
        while missing:
            for rank in sorted(missing):
                if not self.store.check([f"joined/{rank}"]):
                    continue
                missing.discard(rank)
                said = self.get(f"joined/{rank}")
                if "code" in said:
                    return {"do": "fail", "rank": rank, **said}
                if said["facts"] != facts:
                    return _disagreement(rank, said["facts"], facts)
            if self._stop.asked() or self.store.check(["stopping"]):
                return {"do": "stop"}
            if missing and time.monotonic() > deadline:
                return {
                    "do": "fail",
                    "code": RANK_LOST,
                    "message": f"ranks {sorted(missing)} of {self.ranks} did not come within "
                    f"{GATHER_SECONDS:.0f} s",
                }
            self._stop.wait_seconds(_POLL_SECONDS)
        return {"do": "train"}

    def _obey(self, verdict: dict[str, Any]) -> None:
        if verdict["do"] == "fail":
            code, message = str(verdict["code"]), str(verdict["message"])
            who = verdict.get("rank", self.rank)
            if who != self.rank and code in MAY_BE_THE_NODE:
                # So that the node of that rank is told from ours.
                raise WorkloadError(RANK_LOST, f"rank {who} cannot start, {code}: {message}")
            raise WorkloadError(code, message)
        if verdict["do"] == "stop":
            raise StoppedBeforeTraining

    def _give_way(self) -> None:
        if self._stop.wait_seconds(_POLL_SECONDS) and self.rank != 0:
            # Only a note: rank 0 decides, because a rank may be past the point already.
            self.store.set("stopping", "1")
        elif self._stop.asked():
            raise StoppedBeforeTraining

    # -- while training -------------------------------------------------------------------

    def outcome(self, key: str, limit_seconds: float) -> Any:
        """What rank 0 says of something that it alone does, such as saving a checkpoint."""
        try:
            self.store.wait([key], timedelta(seconds=limit_seconds))
            return self.get(key)
        except Exception as error:
            raise RankGoneError(f"rank 0 did not report on {key}: {error}") from error

    def report_failure(self, code: str, message: str) -> None:
        """Leave the reason for the others, whose only sign of it is a broken connection, or who
        wait for this rank still.
        """
        try:
            if not self._together:
                self.refuse(code, message)
            if self.newcomer is None:
                self.store.compare_set("failure", "", json.dumps([self.rank, code, message]))
        except Exception:
            return  # the host of the board is gone itself; nobody is left to tell

    def first_failure(self, limit_seconds: float = 1.0) -> tuple[int, str, str] | None:
        """Rank, reason and message of the rank that failed first, if it could say so."""
        try:
            self.store.wait(["failure"], timedelta(seconds=limit_seconds))
            rank, code, message = self.get("failure")
            return int(rank), str(code), str(message)
        except Exception:
            return None

    def do_without(self, ranks: Iterable[int]) -> None:
        """These have died, so nobody waits for their goodbyes."""
        self._dead.update(ranks)

    def leave(self) -> None:
        """Say goodbye; the host waits for the others, who may want to read why it ends."""
        try:
            self.store.add("left", 1)
            began = time.monotonic()
            while self.rank == 0 and self._is_missed(time.monotonic() - began):
                time.sleep(_POLL_SECONDS)
        except Exception:
            return  # whoever cannot be reached any more needs no goodbye

    def _is_missed(self, waited_seconds: float) -> bool:
        left = self.store.add("left", 0) + len(self._dead)
        if self._together or self._stop.asked():
            return left < self.store.add("arrived", 0) and waited_seconds < LINGER_SECONDS
        # Before the start others may still be on their way, or import what they need to listen;
        # they would find a closed door.
        return left < self.ranks and waited_seconds < LINGER_FOR_LATECOMERS_SECONDS


def _disagreement(
    rank: int, theirs: dict[str, object], ours: dict[str, object]
) -> dict[str, object]:
    message = disagreement(rank, theirs, ours)
    return {"do": "fail", "code": START_REFUSED, "message": message}


def disagreement(rank: int, theirs: dict[str, object], ours: dict[str, object]) -> str:
    """A sentence about the facts that differ between a rank and rank 0."""
    differing = [key for key in ours if theirs.get(key) != ours[key]]
    told = "; ".join(f"{key}: {theirs.get(key)} there, {ours[key]} on rank 0" for key in differing)
    help_with_data = "" if "data" not in differing else ", and a seed for data that are drawn"
    return (
        f"rank {rank} differs from rank 0, so they would not train the same thing ({told}); use "
        f"the same Python, torch and data on every node{help_with_data}"
    )


def host(bound: socket.socket, launch: Launch, stop: StopSignal) -> Rendezvous:
    """Unit 0: serve the store on the socket that was published."""
    import torch.distributed as dist

    name, port = bound.getsockname()[:2]
    store = dist.TCPStore(
        name,
        port,
        None,
        True,
        _STORE_TIMEOUT,
        wait_for_workers=False,
        master_listen_fd=bound.detach(),
    )
    store.set("attempt", f"{launch.uid}/{launch.attempt}")
    return _enter(store, launch, stop)


def join(launch: Launch, stop: StopSignal) -> Rendezvous:
    """Other units: connect, and leave at once if the store is another attempt's."""
    import torch.distributed as dist

    name, port = split_address(launch.rendezvous)
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        _wait_for_listener(name, port, stop, deadline)
        try:
            store = dist.TCPStore(
                name, port, None, False, _HANDSHAKE_TIMEOUT, wait_for_workers=False
            )
            store.set_timeout(_STORE_TIMEOUT)
            holder = store.get("attempt").decode()
            break
        except RuntimeError as error:
            # Unit 0 listens before it has imported torch; on a busy node that takes a while.
            if time.monotonic() > deadline:
                raise WorkloadError(
                    RANK_LOST,
                    f"the rendezvous at {launch.rendezvous} does not answer: "
                    f"{str(error).splitlines()[0]}",
                ) from error
    if holder != f"{launch.uid}/{launch.attempt}":
        raise WorkloadError(
            FENCED,
            f"the rendezvous at {launch.rendezvous} belongs to {holder}, this unit to "
            f"{launch.uid}/{launch.attempt}: it must not join",
        )
    return _enter(store, launch, stop)


def _enter(store: "Store", launch: Launch, stop: StopSignal) -> Rendezvous:
    """Take this unit's place, which can be taken once."""
    taken: int = store.add(f"taken/{launch.unit}", 1)
    if taken > 1:
        raise WorkloadError(
            FENCED,
            f"unit {launch.unit} of {launch.uid}/{launch.attempt} has joined already: it was "
            "started twice",
        )
    # A program of the user's own has one unit a node, with as many ranks as it has accelerators.
    own_program = bool((launch.manifest.get("spec") or {}).get("command"))
    return Rendezvous(
        store,
        rank=launch.unit if own_program else launch.first_rank,
        ranks=launch.units_total,
        prefix=f"{launch.uid}/{launch.attempt}",
        stop=stop,
        newcomer=launch.unit if launch.joins else None,
    )


def _wait_for_listener(name: str, port: int, stop: StopSignal, deadline: float) -> None:
    """Connect once without torch, whose own attempt could not be interrupted by a stop."""
    problem: OSError | None = None
    refusals = 0
    while time.monotonic() < deadline and refusals < _REFUSALS_MAX:
        try:
            socket.create_connection((name, port), timeout=2).close()
            return
        except OSError as error:
            problem = error
            # It listened when its address was published, so a refusal means that it is gone.
            refusals += isinstance(error, ConnectionRefusedError)
        if stop.wait_seconds(0.2):
            raise StoppedBeforeTraining
    raise WorkloadError(
        RANK_LOST, f"nobody listens at the rendezvous {name}:{port} any more: {problem}"
    )
