"""Compares what a node shall run with what it runs, and says what to do. Pure.

The assignment is the full wanted state, so the same one may be compared any number of times. What
is not listed and runs all the same is a stray: it is kept, and the control plane hears of it when
the node registers.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from controlplane.domain.ids import TERM_LIMIT
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import Intent, Outcome


@dataclass(frozen=True, slots=True, order=True)
class UnitKey:
    """One launch unit of one attempt: what is started at most once, ever."""

    uid: str
    attempt: int
    unit: int

    def __str__(self) -> str:
        return f"{self.uid}/{self.attempt}/{self.unit}"


@dataclass(frozen=True, slots=True)
class WantedUnit:
    """A launch unit that belongs to this node.

    Attributes:
        index: Its name within the attempt; unit 0 hosts the rendezvous.
        accelerators: What it may touch.
        first_rank: Global rank of its first process.
        cpu_cores: Cores that it is pinned to; empty leaves it unpinned.
        host_memory_bytes: Host memory meant for it; 0 where unknown.
        joins: Whether the other ranks of its attempt train already.
    """

    index: int
    accelerators: tuple[str, ...]
    first_rank: int = 0
    cpu_cores: tuple[int, ...] = ()
    host_memory_bytes: int = 0
    joins: bool = False


@dataclass(frozen=True, slots=True)
class WantedLaunch:
    """One attempt of a job with this node's units; ``nodes.proto`` explains the fields."""

    uid: str
    attempt: int
    intent: Intent
    units: tuple[WantedUnit, ...] = ()
    job_name: str = ""
    namespace: str = "default"
    manifest_json: str = "{}"
    plan: str = ""
    ranks_total: int = 1
    units_total: int = 1
    rendezvous: str = ""
    purge: bool = False
    own_pod: bool = False

    def key(self, unit: WantedUnit) -> UnitKey:
        """The name of one of its units."""
        return UnitKey(self.uid, self.attempt, unit.index)


@dataclass(frozen=True, slots=True)
class Assignment:
    """All that this node shall run, as of (term, number)."""

    term: int
    number: int
    launches: tuple[WantedLaunch, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalUnit:
    """A unit that is alive here.

    Attributes:
        accelerators: What it holds.
        plan: Execution plan that it was started with, or asked for since; empty for no say.
        stop_requested: It was asked to checkpoint and exit.
        end_requested: It was told to exit at once.
    """

    accelerators: tuple[str, ...] = ()
    plan: str = ""
    stop_requested: bool = False
    end_requested: bool = False

    @property
    def leaving(self) -> bool:
        """Whether it was told to go."""
        return self.stop_requested or self.end_requested


@dataclass(frozen=True, slots=True)
class UnitEnd:
    """How a unit ended, as the control plane will hear it."""

    outcome: Outcome
    step: int = 0
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What the journal remembers.

    Attributes:
        highest: Highest (term, number) obeyed.
        highest_attempts: Highest attempt of each job that was started here.
        started: Every unit whose start was ever begun here.
        purged: Jobs whose checkpoints were removed.
    """

    highest: tuple[int, int] = (0, 0)
    highest_attempts: Mapping[str, int] = field(default_factory=dict)
    started: Collection[UnitKey] = frozenset()
    purged: Collection[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Local:
    """What this node is and runs now.

    Attributes:
        running: Units that are alive, also those whose start is still going on.
        ends: Known ends of units that are gone.
        ends_pending: Ends that this assignment need not ask for again: on their way, or told.
        accelerators: Id of each accelerator here, with why it is unhealthy, or empty.
        pods_up: Jobs' own pods that are up here, as (uid, attempt).
        pods_overdue: Those that were waited for long enough.
    """

    running: Mapping[UnitKey, LocalUnit] = field(default_factory=dict)
    ends: Mapping[UnitKey, UnitEnd] = field(default_factory=dict)
    ends_pending: Collection[UnitKey] = frozenset()
    accelerators: Mapping[str, str] = field(default_factory=dict)
    pods_up: Collection[tuple[str, int]] = frozenset()
    pods_overdue: Collection[tuple[str, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class StartUnit:
    """Write it into the journal, then start it."""

    key: UnitKey
    launch: WantedLaunch
    unit: WantedUnit


@dataclass(frozen=True, slots=True)
class RequestStop:
    """Ask it to agree on a step, checkpoint and exit."""

    key: UnitKey


@dataclass(frozen=True, slots=True)
class AskForPlan:
    """Ask the ranks, through unit 0, to go on under another plan."""

    key: UnitKey
    plan: str


@dataclass(frozen=True, slots=True)
class EndUnit:
    """Make it exit now."""

    key: UnitKey


@dataclass(frozen=True, slots=True)
class ReportExit:
    """Tell the control plane that this unit does not run."""

    key: UnitKey
    end: UnitEnd


@dataclass(frozen=True, slots=True)
class PurgeCheckpoints:
    """Remove every checkpoint of a job that is gone, then report ``key`` as exited."""

    key: UnitKey
    manifest_json: str


Command = StartUnit | RequestStop | AskForPlan | EndUnit | ReportExit | PurgeCheckpoints


def refusal(assignment: Assignment, memory: Memory) -> str:
    """Why this assignment must not be obeyed; empty if it may be.

    Args:
        assignment: What came.
        memory: What was obeyed before.
    """
    came = (assignment.term, assignment.number)
    if assignment.term >= TERM_LIMIT:
        # Once obeyed, no sane term could be obeyed after it.
        return f"assignment (term {came[0]}, number {came[1]}): no control plane has such a term"
    if came < memory.highest:
        return (
            f"assignment (term {came[0]}, number {came[1]}) is older than "
            f"(term {memory.highest[0]}, number {memory.highest[1]}), which was obeyed already"
        )
    return ""


def commands(assignment: Assignment, local: Local, memory: Memory) -> tuple[Command, ...]:
    """What to do so that the node comes to run its assignment.

    Nothing that the journal says was started is started again, and no attempt lower than one
    seen before: both are answered with an exit instead.
    """
    if refusal(assignment, memory):
        return ()
    return tuple(_commands(assignment, local, memory))


def _commands(assignment: Assignment, local: Local, memory: Memory) -> Iterator[Command]:
    leaving = {
        launch.key(unit)
        for launch in assignment.launches
        if launch.intent is not Intent.RUN
        for unit in launch.units
    } | {key for key, unit in local.running.items() if unit.leaving}
    holders = {slot: key for key, unit in local.running.items() for slot in unit.accelerators}
    highest = dict(memory.highest_attempts)
    for launch in assignment.launches:
        if launch.purge:
            yield from _purge(launch, local, memory)
            continue
        for unit in launch.units:
            key = launch.key(unit)
            if key in local.running:
                yield from _towards(launch, key, local.running[key])
            elif key in local.ends_pending:
                continue
            elif key in local.ends:
                yield ReportExit(key, local.ends[key])
            elif key in memory.started:
                yield ReportExit(key, _lost(key))
            else:
                answer = _answer(launch, unit, local, holders, leaving, highest)
                if not isinstance(answer, ReportExit):
                    # Also while it waits, so that no later launch has what it waits for.
                    holders.update(dict.fromkeys(unit.accelerators, key))
                if answer is not None:
                    yield answer


def _purge(launch: WantedLaunch, local: Local, memory: Memory) -> Iterator[Command]:
    key = UnitKey(launch.uid, launch.attempt, 0)
    if any(running.uid == launch.uid for running in local.running):
        return  # a rank that still runs could write what was just removed
    if launch.uid not in memory.purged:
        yield PurgeCheckpoints(key, launch.manifest_json)
    elif key not in local.ends_pending:
        yield ReportExit(key, UnitEnd(Outcome.NEVER_STARTED))


def _towards(launch: WantedLaunch, key: UnitKey, unit: LocalUnit) -> Iterator[Command]:
    intent = launch.intent
    # Rank 0 asks the others. The plan of a user's own program never changes.
    differs = key.unit == 0 and launch.plan not in ("", unit.plan)
    if intent is Intent.RUN and differs and not unit.leaving:
        yield AskForPlan(key, launch.plan)
    if intent is Intent.STOP and not unit.leaving:
        yield RequestStop(key)
    if intent is Intent.END and not unit.end_requested:
        yield EndUnit(key)


def _answer(
    launch: WantedLaunch,
    unit: WantedUnit,
    local: Local,
    holders: Mapping[str, UnitKey],
    leaving: Collection[UnitKey],
    highest: Mapping[str, int],
) -> StartUnit | ReportExit | None:
    """What follows for a unit that was never started here; None while it has to wait."""
    key = launch.key(unit)
    if launch.intent is not Intent.RUN:
        return ReportExit(key, UnitEnd(Outcome.NEVER_STARTED))
    if launch.attempt < highest.get(launch.uid, 0):
        return _refused(
            key,
            ReasonCode.FENCED,
            f"attempt {launch.attempt} comes after attempt {highest[launch.uid]} of the job was "
            "started on this node; only a higher attempt can start",
        )
    for slot in unit.accelerators:
        if slot not in local.accelerators:
            have = ", ".join(local.accelerators) or "no accelerators"
            return _refused(
                key,
                ReasonCode.START_REFUSED,
                f"accelerator {slot} is not on this node, which has {have}",
            )
        if local.accelerators[slot]:
            return _refused(
                key,
                ReasonCode.ACCELERATOR_UNHEALTHY,
                f"accelerator {slot} is quarantined: {local.accelerators[slot]}",
            )
    held = [slot for slot in unit.accelerators if slot in holders]
    stuck = [slot for slot in held if holders[slot] not in leaving]
    if stuck:
        return _refused(
            key,
            ReasonCode.START_REFUSED,
            f"accelerator {stuck[0]} is held by unit {holders[stuck[0]]}, which was not told to "
            "leave it; end that unit first",
        )
    if held or (unit.index != 0 and not launch.rendezvous):
        return None
    if launch.own_pod and (launch.uid, launch.attempt) not in local.pods_up:
        return _without_pod(key, launch, local)
    return StartUnit(key, launch, unit)


def _without_pod(key: UnitKey, launch: WantedLaunch, local: Local) -> ReportExit | None:
    """Nothing was begun yet, so a job that waits for its pod can be taken back at any time."""
    if (launch.uid, launch.attempt) not in local.pods_overdue:
        return None
    return _refused(
        key,
        ReasonCode.POD_NOT_STARTED,
        f"the pod of the job for attempt {launch.attempt} did not come up on this node in time; "
        f"`kubectl describe pods -n {launch.namespace} -l headrace.dev/job-uid={launch.uid}` says "
        "why",
    )


def _refused(key: UnitKey, code: ReasonCode, message: str) -> ReportExit:
    # Failed and not NeverStarted: a job that cannot start must back off, not try for ever.
    return ReportExit(key, UnitEnd(Outcome.FAILED, reason=Reason(code, message)))


def _lost(key: UnitKey) -> UnitEnd:
    return UnitEnd(
        Outcome.LOST,
        reason=Reason(
            ReasonCode.RANK_LOST,
            f"unit {key.unit} was started on this node and is gone without a trace",
        ),
    )
