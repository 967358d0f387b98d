r"""Which running job tries another plan or size for some steps, because what is learnt pays for it.

A job that trains goes over to a way of which little is known: another plan on the accelerators that
it has, or a plan on more of its node while those are free. Its ranks tell what a step takes, the
model is fitted again, and it stays or goes back. All jobs of the type that run or wait gain: with
:math:`R_j` steps left, of which each saves :math:`g_c` (``knowing``), to measure way :math:`c` is
worth

.. math:: V_c = g_c \sum_j R_j

in seconds of everybody's completion times, as a round counts them (``worth``). For the job that
tries, which has :math:`a` accelerators and :math:`s` seconds a step, it costs two changes of
:math:`\sigma` seconds and what it is slower for as long as it stays; others do without what it has
more meanwhile:

.. math::

    L_c = 2 \sigma + D \max(0,\ 1 - s / m_c), \qquad D = \max(\text{cool-down},\ 20\, m_c)

    P_c = L_c (1 + n a / A) + D\, n (a_c - a) / A

The way of largest :math:`V_c - P_c` is tried if :math:`V_c` is at least ``try_least_worth`` times
:math:`P_c`, and if even at the upper end of what is predicted :math:`L_c` is within the job's
budget, ``try_share`` of the time that it still needs. It tries ``try_plans_at_most`` times.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

from controlplane.domain.ids import JobUid, NodeId
from controlplane.domain.job import JobSpec, ServiceClass
from controlplane.domain.model_type import type_text
from controlplane.domain.record import JobRecord
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_times import Shares, Way
from controlplane.placing.racks import Allowed
from controlplane.placing.shares import shares_of
from controlplane.rubick.board import Parts
from controlplane.rubick.knowing import Beliefs
from controlplane.rubick.round import Round
from controlplane.rubick.seat import Seat, kind_of
from controlplane.rubick.seating import Promise
from controlplane.rubick.settings import RubickSettings
from controlplane.rubick.tries import STEPS_OF_A_TRY, begins_to_try, trying
from headrace.api.accelerator_type import type_label
from headrace.api.counted import counted
from headrace.api.plan import ExecutionPlan


@runtime_checkable
class BelievingTimes(Protocol):
    """Step times that tell how sure they are, and what measuring would teach."""

    def beliefs(
        self, spec: JobSpec, kind: str, held: tuple[ExecutionPlan, Shares]
    ) -> Beliefs | None:
        """What is believed of the ways that the job may have; None where nothing is known at all.

        Args:
            spec: Of the job.
            kind: Type of the accelerators.
            held: The way that it has; the first of the answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """What trying a way is worth, and what it costs.

    Attributes:
        uid: The job that tries it.
        way: The way, and what is predicted of it.
        kind: Type of the accelerators.
        parts: Which accelerators, by node.
        before: The plan that it has.
        worth_seconds: What is saved by knowing, in seconds of all jobs' completion times.
        price_seconds: What trying costs, in the same.
        lost_at_most_seconds: How much later the job may end for it, at most.
        budget_seconds: How much later it may.
        jobs: Jobs of the type that gain.
        rows: Measurements that the predictions rest on.
        pays: Whether it is tried.
    """

    uid: JobUid
    way: Way
    kind: str
    parts: Parts
    before: ExecutionPlan
    worth_seconds: float
    price_seconds: float
    lost_at_most_seconds: float
    budget_seconds: float
    jobs: int
    rows: int
    pays: bool

    @property
    def net_seconds(self) -> float:
        """What is left of its worth."""
        return self.worth_seconds - self.price_seconds


class Trials:
    """Looks for what to try in a round that was dealt."""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        times: object,
        settings: RubickSettings,
        competition: float,
        jobs: Sequence[tuple[JobRecord, Seat]],
        promises: Mapping[JobUid, Promise],
        dealing: Round,
    ) -> None:
        """Looks for nothing yet.

        Args:
            snapshot: The cluster.
            times: Step times; those that are measured and not believed leave nothing to try.
            settings: The knobs.
            competition: Jobs that wait or are expected, for each accelerator.
            jobs: All of the round, with what they were dealt.
            promises: Of guaranteed jobs.
            dealing: The round, dealt: it knows what is left.
        """
        self._snapshot = snapshot
        self._times = times
        self._settings = settings
        self._competition = competition
        self._jobs = jobs
        self._promises = promises
        self._dealing = dealing
        # Plans and placements by type of model and device: read once a round, for all types.
        self._measured: dict[tuple[str, str], set[tuple[str, str]]] | None = None

    def chosen(self) -> dict[JobUid, Trial]:
        """At most one trial for each type of model, by the job that has most time left: the others
        learn what it tells.
        """
        settings = self._settings
        if not settings.try_plans_at_most or not isinstance(self._times, BelievingTimes):
            return {}
        longest: dict[str, tuple[JobRecord, Seat]] = {}
        for record, seat in self._jobs:
            kind = record.job.spec.model_type
            if not kind or not self._may_try(record, seat):
                continue
            known = longest.get(kind)
            if known is None or seat.held_seconds_left > known[1].held_seconds_left:
                longest[kind] = (record, seat)
        found = [self._best(record, seat) for record, seat in longest.values()]
        return {trial.uid: trial for trial in found if trial is not None and trial.pays}

    def explained(self, uid: JobUid) -> Iterator[str]:
        """What people may want to know of a job and what it tries."""
        record, seat = next((each for each in self._jobs if each[0].uid == uid), (None, None))
        if record is None or seat is None or not self._settings.try_plans_at_most:
            return
        last = trying(record)
        if last is not None:
            yield (
                f"It tries {last.after} in place of {last.before}, to learn what its steps take; "
                "it stays if that is better, and else goes back."
            )
        trial = self._best(record, seat) if self._may_try(record, seat) else None
        if trial is None:
            return
        lies = "+".join(map(str, trial.way.shares))
        what = f"{trial.way.plan} on {lies} for {STEPS_OF_A_TRY} steps: {sentence(trial)}"
        if uid in self.chosen():
            yield f"It is to try {what}."
        elif trial.pays:
            yield f"It does not try {what}; but another job of its type does, or has longer to go."
        else:
            yield f"It does not try {what}."

    # -- one job --------------------------------------------------------------------------

    def _may_try(self, record: JobRecord, seat: Seat) -> bool:
        """Whether it trains, is to go on as it is, and has tried less than it may. What has too
        little time left for two changes is told apart quickly.
        """
        attempt, settings = record.attempt, self._settings
        if attempt is None or seat.stays or seat.held is None or seat.given is not seat.held:
            return False
        if not record.job.spec.changes_plan_in_memory:
            return False
        if not (attempt.trained and attempt.is_up) or attempt.leaving:
            return False
        if attempt.plan_change is not None or record.tries >= settings.try_plans_at_most:
            return False
        most = settings.changes_at_most
        if most and record.reconfigurations + 2 > most:
            return False
        return 2 * seat.switch_seconds <= self._budget(seat)

    def _budget(self, seat: Seat) -> float:
        return self._settings.try_share * seat.held_seconds_left

    def _best(self, record: JobRecord, seat: Seat) -> Trial | None:
        """The way that is worth most to try for a job that runs; None if there is none to try."""
        attempt, times, held = record.attempt, self._times, seat.held
        if attempt is None or held is None or not isinstance(times, BelievingTimes):
            return None
        spec, kind = record.job.spec, kind_of(held)
        if self._is_tried(spec.model_type):
            return None
        here = (attempt.placement.plan, shares_of(attempt.placement))
        beliefs = times.beliefs(spec, kind, here)
        if beliefs is None:
            return None
        steps, jobs = self._steps_left(spec.model_type, kind)
        known = self._known(spec.model_type, kind)
        expected = beliefs.expected_seconds.tolist()
        now = beliefs.ways[0].seconds
        found: Trial | None = None
        for place, way in enumerate(beliefs.ways):
            if place == 0 or (way.plan, way.shares) in known:
                continue
            parts = self._parts(seat, way, here[1])
            if parts is None or not self._keeps_promise(record, way):
                continue
            worth = steps * beliefs.saved_by_knowing(place, self._competition)
            price = self._price(seat, expected[place], now, way.accelerators)
            lost, budget = self._lost(seat, way.seconds_upper, now), self._budget(seat)
            pays = lost <= budget and worth >= self._settings.try_least_worth * price
            trial = Trial(
                record.uid, way, kind, parts, here[0], worth, price, lost, budget, jobs,
                beliefs.rows, pays,
            )  # fmt: skip
            if found is None or (pays, trial.net_seconds) > (found.pays, found.net_seconds):
                found = trial
        return found

    def _stays(self, seconds: float) -> float:
        """For how long a way is tried."""
        return max(self._settings.cool_down_seconds, STEPS_OF_A_TRY * seconds)

    def _lost(self, seat: Seat, seconds: float, now: float) -> float:
        """How much later the job ends for trying a way whose steps take so long."""
        return 2 * seat.switch_seconds + self._stays(seconds) * max(0.0, 1.0 - now / seconds)

    def _price(self, seat: Seat, seconds: float, now: float, accelerators: int) -> float:
        own = seat.held.accelerators if seat.held is not None else 0
        lost = self._lost(seat, seconds, now) * (1.0 + self._competition * own)
        return lost + self._stays(seconds) * self._competition * max(0, accelerators - own)

    def _parts(self, seat: Seat, way: Way, here: Shares) -> Parts | None:
        """Where the job would try it: where it is, or there and on what is free of its node beside;
        None if it cannot. Ranks that are tensor parallel must be on one node.
        """
        held = seat.held
        assert held is not None, "who tries has something"
        if way.plan.tensor_parallel > 1 and len(way.shares) > 1:
            return None
        allowed = seat.rooms.get(way.plan)
        if allowed is not None and not all(_has(allowed, *where) for where, _ in held.parts):
            return None
        if way.shares == here:
            return held.parts
        if len(way.shares) == 1 == len(here) and way.accelerators > held.accelerators:
            return self._dealing.grown(seat, way.accelerators)
        return None

    def _keeps_promise(self, record: JobRecord, way: Way) -> bool:
        """Whether a guaranteed job would not be slower than it was promised, even at the upper end
        of what is predicted.
        """
        if record.job.spec.service_class is not ServiceClass.GUARANTEED:
            return True
        promise = self._promises.get(record.uid)
        if promise is None or not promise.steps_per_second:
            return False
        return 1.0 / way.seconds_upper >= promise.steps_per_second

    # -- the others of its type -----------------------------------------------------------

    def _is_tried(self, model_type: str) -> bool:
        """Whether a job of the type tries something now."""
        return any(
            record.job.spec.model_type == model_type
            and (trying(record) is not None or begins_to_try(record))
            for record, _ in self._jobs
        )

    def _steps_left(self, model_type: str, kind: str) -> tuple[float, int]:
        """Steps of all jobs of the type that may have these accelerators, and how many they are.
        Who runs would have to change, so what is left after two changes counts.
        """
        steps, jobs = 0.0, 0
        for record, seat in self._jobs:
            if record.job.spec.model_type != model_type:
                continue
            if seat.held is None:
                gains = any(each.kind == kind for each in seat.choices.every)
                left = seat.steps_left if gains else 0.0
            elif kind_of(seat.held) == kind and seat.held_seconds_left > 0:
                after = seat.held_seconds_left - 2 * seat.switch_seconds
                left = seat.steps_left * max(0.0, after) / seat.held_seconds_left
            else:
                left = 0.0
            steps, jobs = steps + left, jobs + (left > 0)
        return steps, jobs

    def _known(self, model_type: str, kind: str) -> set[tuple[ExecutionPlan, Shares]]:
        """What was measured already."""
        if self._measured is None:
            self._measured = {}
            for each in self._snapshot.observations.values():
                row = each.row
                if row.machine is not None and row.iteration is not None:
                    about = (type_text(row.asked), row.machine.device)
                    self._measured.setdefault(about, set()).add((row.plan, row.placement))
        return {
            _lies(plan, placement)
            for (named, device), ways in self._measured.items()
            if named == model_type and type_label(device) == kind
            for plan, placement in ways
        }


@lru_cache(maxsize=4096)
def _lies(plan: str, placement: str) -> tuple[ExecutionPlan, Shares]:
    """What a row is about, as a way is."""
    shares = sorted(map(int, placement.split("+")), reverse=True)
    return ExecutionPlan.parse(plan), tuple(shares)


def _has(allowed: Mapping[str, Allowed], kind: str, node: NodeId) -> bool:
    if kind not in allowed:
        return False
    nodes = allowed[kind]
    return nodes is None or node in nodes


def sentence(trial: Trial) -> str:
    """Why a way is tried, or not, with the numbers that it was decided by."""
    rests = f"{counted(trial.rows, 'measurement')}" if trial.rows else "no measurement"
    jobs = "1 job" if trial.jobs == 1 else f"{trial.jobs} jobs"
    balance = (
        f"predictions rest on {rests}, and to know more is expected to save {jobs} of its type "
        f"{trial.worth_seconds:.3g} s for a price of {trial.price_seconds:.3g} s"
    )
    if trial.pays:
        return balance
    if trial.lost_at_most_seconds > trial.budget_seconds:
        return (
            f"{balance}; but it might cost this job {trial.lost_at_most_seconds:.3g} s, more than "
            f"the {trial.budget_seconds:.3g} s that one try may"
        )
    return f"{balance}, which is not worth it"
