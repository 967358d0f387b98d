"""How units come to ranks that train already, seen from both sides.

Meanwhile on the notice board:

``join/proof``    by rank 0: what a newcomer must see in the checkpoint store
``ready/{rank}``  by the newcomer: which unit it is and what it would train, renewed as a sign of
                  life; or why it cannot join. Units that come later have higher numbers, so rank 0
                  knows who came for an earlier plan
``join/{unit}``   by rank 0: come in now, or why not
``join/over``     by rank 0: training has ended

Until it is taken in, a newcomer holds up nobody, and whatever happens to it is its own affair.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from headrace.workloads.checkpoints import JobCheckpoints
from headrace.workloads.control import StopSignal
from headrace.workloads.refusal import (
    RANK_LOST,
    START_REFUSED,
    STORE_NOT_SHARED,
    StoppedBeforeTraining,
    WorkloadError,
)
from headrace.workloads.rendezvous import Rendezvous, disagreement

PROOF_SECONDS = 5.0
"""How long a network file system may take to show what another node wrote."""

_POLL_SECONDS = 0.02
_SIGN_SECONDS = 0.25
"""A newcomer that waits gives a sign of life so often."""
_SILENT_SECONDS = 10.0
_LOOK_SECONDS = 0.2
_FAREWELL_SECONDS = 2.0
"""Who is asked to end while it waits stays so long, as it may have been taken in just then."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What a newcomer is told when it is taken in.

    Attributes:
        plan: Plan that all go over to.
        step: Last step under the plan before.
        loss: Loss of that step.
    """

    plan: str
    step: int
    loss: float | None


def store_not_shared(name: str, node: str, rank: int) -> WorkloadError:
    """A rank does not see what rank 0 wrote."""
    where = f"node {node}" if node else "this rank's node"
    return WorkloadError(
        STORE_NOT_SHARED,
        f"the checkpoint store {name} is not shared: {where} (rank {rank}) does not see what rank "
        "0 wrote there; name a store that every node mounts at this path, or a URL",
    )


class Newcomer:
    """A unit that comes to ranks which train already, on its own side."""

    def __init__(self, rendezvous: Rendezvous, stop: StopSignal) -> None:
        self._board = rendezvous
        self._unit = rendezvous.newcomer
        self._stop = stop
        self._count = 0
        self._told_at = 0.0

    def sees_store(self, checkpoints: JobCheckpoints, node: str) -> int:
        """See that the checkpoints are where rank 0 has them; returns the attempt that claims them.

        Raises:
            WorkloadError: They are not.
            StoppedBeforeTraining: It is not needed any more.
        """
        told: dict[str, Any] | None = None
        since = 0.0
        while True:
            before, told = told, self._found("join/proof")
            if told is not None:
                if checkpoints.sees(told["attempt"], told["nonce"]):
                    return int(told["attempt"])
                if told != before:
                    since = time.monotonic()
                elif time.monotonic() - since > PROOF_SECONDS:
                    raise store_not_shared(checkpoints.storage.name, node, self._board.rank)
            if self._is_dismissed():
                raise StoppedBeforeTraining

    def tell_ready(self, facts: dict[str, Any]) -> None:
        """Have rank 0 know that this unit can come in, and what it would train."""
        self._told_at = time.monotonic()
        self._count += 1
        with self._reaching():
            self._board.put(
                self._own_key, {"unit": self._unit, "facts": facts, "count": self._count}
            )

    def admitted(self, facts: dict[str, Any]) -> Admission:
        """Wait until rank 0 has it come in, which it must have been told that it can.

        Raises:
            WorkloadError: Rank 0 has reasons not to, or is gone.
            StoppedBeforeTraining: It is not needed any more.
        """
        while True:
            told = self._found(f"join/{self._unit}")
            if told is None and self._is_dismissed():
                told = self._last_word()
            if told is not None:
                return self._taken_in(told)
            if time.monotonic() - self._told_at >= _SIGN_SECONDS:
                self.tell_ready(facts)

    @property
    def _own_key(self) -> str:
        return f"ready/{self._board.rank}"

    def _taken_in(self, told: dict[str, Any]) -> Admission:
        if "refused" in told:
            raise WorkloadError(START_REFUSED, told["refused"])
        self._board.newcomer = None
        return Admission(**told)

    def _last_word(self) -> dict[str, Any]:
        """Not ready any more, unless rank 0 has just counted on it."""
        with self._reaching():
            self._board.take_down(self._own_key)
        began = time.monotonic()
        while time.monotonic() - began < _FAREWELL_SECONDS:
            told: dict[str, Any] | None = self._found(f"join/{self._unit}")
            if told is not None:
                return told
            if self._found("join/over"):
                break
            time.sleep(_POLL_SECONDS)
        raise StoppedBeforeTraining

    def _is_dismissed(self) -> bool:
        return self._stop.wait_seconds(_POLL_SECONDS) or self._found("join/over") is not None

    def _found(self, key: str) -> Any:
        with self._reaching():
            return self._board.find(key)

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if self._stop.asked():
                # Whatever has become of rank 0, this unit has done what it was asked for.
                raise StoppedBeforeTraining from error
            raise WorkloadError(
                RANK_LOST, f"rank 0 could not be reached any more while this unit waited: {error}"
            ) from error


@dataclass(frozen=True, slots=True)
class _Heard:
    """What rank 0 has heard of a newcomer.

    Attributes:
        unit: Which one it is.
        count: Its last sign of life.
        at: When that was news.
    """

    unit: int
    count: int
    at: float


class Newcomers:
    """The units that a plan of more ranks waits for, as rank 0 sees them.

    Attributes:
        prepare_seconds: How long they took until all were ready.
        next_unit: The lowest number that a unit may have which comes after them.
    """

    def __init__(
        self, board: Rendezvous, facts: dict[str, Any], ranks: range, first_unit: int = 0
    ) -> None:
        self.prepare_seconds = 0.0
        self.next_unit = first_unit
        self._board = board
        self._facts = facts
        self._first_unit = first_unit
        self._heard: dict[int, _Heard] = {}
        self._ranks = ranks
        self._began = time.monotonic()
        self._looked_at = 0.0
        self._were_there = False
        for rank in ranks:
            board.take_down(f"ready/{rank}")  # what one has left that is gone; who lives tells anew

    def are_there(self, *, now: bool = False) -> bool:
        """Whether all are ready. It looks a few times a second only, unless it must be ``now``.

        Raises:
            ValueError: One cannot join.
        """
        at = time.monotonic()
        if now or at - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = at
            there = [self._is_there(rank, at) for rank in self._ranks]
            self._were_there = all(there)
            if self._were_there and not self.prepare_seconds:
                self.prepare_seconds = at - self._began
        return self._were_there

    def _is_there(self, rank: int, at: float) -> bool:
        said = self._board.find(f"ready/{rank}")
        heard = self._heard.get(rank)
        if said is not None:
            if said["unit"] < self._first_unit:
                return False
            self.next_unit = max(self.next_unit, said["unit"] + 1)
        if said is None:
            if heard is not None:
                raise ValueError(f"rank {rank} cannot join: it was ready, and has gone again")
            return False
        if "refused" in said:
            raise ValueError(f"rank {rank} cannot join: {said['refused']}")
        if said["facts"] != self._facts:
            told = disagreement(rank, said["facts"], self._facts)
            self._board.put(f"join/{said['unit']}", {"refused": told})
            raise ValueError(told)
        if heard is None or (heard.unit, heard.count) != (said["unit"], said["count"]):
            self._heard[rank] = _Heard(said["unit"], said["count"], at)
        elif at - heard.at > _SILENT_SECONDS:
            raise ValueError(f"rank {rank} cannot join: it gives no sign of life any more")
        return True

    def take_in(self, admission: Admission) -> None:
        """Have all of them come in."""
        for heard in self._heard.values():
            self._board.put(f"join/{heard.unit}", asdict(admission))
