"""How fast runs are and when they fail: the step times, and the luck that the scenario draws."""

from collections.abc import Callable
from math import inf, log

from controlplane.domain.chance import draw, draw_between
from controlplane.domain.clock import Instant
from controlplane.domain.ids import Attempt, NodeId
from controlplane.domain.node import Node
from controlplane.domain.record import AttemptRecord, JobRecord
from controlplane.placing.shares import shares_of
from simulator.physics import Run, UnknownPlacementError
from simulator.results.allocation_log import HOLDS_NOTHING, Happened, Row
from simulator.scenario import Arrival, Scenario

_DAY_SECONDS = 86_400.0


class Speeds:
    """What steps take in a scenario. All its luck depends on the seed and names alone."""

    def __init__(self, scenario: Scenario) -> None:
        self._times = scenario.step_times
        self._faults = scenario.faults
        self._seed = scenario.seed

    def step_seconds(
        self, arrival: Arrival, attempt: AttemptRecord, node_of: Callable[[NodeId], Node | None]
    ) -> float:
        """Time of a step of the attempt where it is now.

        Args:
            arrival: The job.
            attempt: Its attempt.
            node_of: Nodes by name; None for one that only a snapshot knows.

        Raises:
            UnknownPlacementError: The step times do not know the placement.
        """
        placement, job = attempt.placement, arrival.job
        unit = placement.units[0]
        node = node_of(unit.node)
        kinds = () if node is None else node.accelerators
        kind = next((a.type for a in kinds if a.id == unit.accelerators[0]), "")
        shares = shares_of(placement)
        times = arrival.times or self._times
        way = times.way(job.spec, kind, placement.plan, shares)
        if way is None:
            lies = "+".join(map(str, shares))
            raise UnknownPlacementError(
                f"{job.full_name} ({job.spec.model_type or 'no model type'}) was placed as "
                f"{placement.plan} on {lies} {kind}, where nobody knows what its steps take: "
                "a policy may place jobs only on ways that the step times give"
            )
        return way.seconds * arrival.pace * self._luck(job.name, attempt.number)

    def _luck(self, name: str, attempt: Attempt) -> float:
        faults, seed = self._faults, self._seed
        factor = 1.0
        if faults.stepNoise:
            noise = faults.stepNoise
            factor *= draw_between(1.0 - noise, 1.0 + noise, seed, "noise", name, attempt)
        if faults.stragglerShare and draw(seed, "slow", name, attempt) < faults.stragglerShare:
            factor *= faults.stragglerFactor
        return factor

    def ends_at_step(
        self, arrival: Arrival, attempt: Attempt, first: float, step_seconds: float
    ) -> tuple[float, bool]:
        """At which step a run ends that begins at ``first``, and whether it fails there."""
        last, fails = inf if arrival.endless else float(arrival.job.spec.steps), False
        if arrival.fails_at_step:
            last, fails = max(first, float(arrival.fails_at_step)), True
        if self._faults.runFailuresPerDay:
            luck = draw(self._seed, "failure", arrival.job.name, attempt)
            wait = -log(1.0 - luck) * _DAY_SECONDS / self._faults.runFailuresPerDay
            if first + wait / step_seconds < last:
                last, fails = first + wait / step_seconds, True
        return last, fails


def row_of(run: Run, event: Happened, at: Instant, step: float, speed: float = 0.0) -> Row:
    """The allocation log's row of something that happened to a run."""
    if event in HOLDS_NOTHING:
        return Row(at, run.uid, event, step=step)
    held: dict[NodeId, int] = {}
    for unit in run.placement.units:
        held[unit.node] = held.get(unit.node, 0) + len(unit.accelerators)
    return Row(at, run.uid, event, tuple(held.items()), str(run.placement.plan), speed, step)


def is_limited(record: JobRecord) -> bool:
    """Whether it is ended at some time, whatever it does."""
    spec = record.job.spec
    return bool(spec.deadline_seconds or spec.max_run_seconds)
