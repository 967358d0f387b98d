"""The one policy protocol: a view in, a decision with reasons out.

A policy says where every job *should* run. The engine compares that with where jobs do run and
orders the difference, so a policy needs no memory and cannot break the handover rules.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from controlplane.domain.ids import JobUid, SequenceNumber
from controlplane.domain.job import Owner
from controlplane.domain.knob import Knob
from controlplane.domain.placement import Placement
from controlplane.domain.proposal import Proposal, ProposalUse
from controlplane.domain.reason import Reason
from controlplane.domain.snapshot import ClusterSnapshot


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """Which policy decides, and the knobs that people may turn.

    Attributes:
        policy: Name of the policy.
        period_seconds: Longest time between two cycles; events wake the loop earlier.
        node_grace_seconds: Silence after which a node counts as lost.
        recovery_grace_seconds: After a start, how long to wait for known nodes to speak.
        stop_grace_seconds: How long a planned stop may take before the attempt is ended.
        start_grace_seconds: How long an attempt may take to report its first step before it
            counts as failed; 0 for no limit.
        answer_seconds: How long ranks may take to tell of a change of plan, before it is made by a
            restart; slow steps and those that are to join make it longer.
        finished_jobs_kept: Most finished jobs that are remembered; the one that finished first
            is forgotten first.
        finished_kept_seconds: How long a finished job is remembered whose manifest does not say;
            0 for no limit but the number.
        knobs: What was set of the policies' own knobs, by their whole names, in order of these.
            Those that nobody set are not here, so that they follow their defaults.
        owner: Who has the object that they come from, and alone changes them.
    """

    policy: str = "rubick"
    period_seconds: float = 5.0
    node_grace_seconds: float = 15.0
    recovery_grace_seconds: float = 20.0
    stop_grace_seconds: float = 120.0
    start_grace_seconds: float = 600.0
    answer_seconds: float = 120.0
    finished_jobs_kept: int = 5_000
    finished_kept_seconds: float = 90.0 * 24 * 3600
    knobs: tuple[tuple[str, float], ...] = ()
    owner: Owner = Owner.CONTROL_PLANE


@dataclass(frozen=True, slots=True)
class Optimality:
    """How good a decision is, by the policy's own objective.

    Attributes:
        value: What was reached.
        bound: No decision can reach more; proven.
        prices: What an accelerator of each type would be worth, in the same measure.
    """

    value: float
    bound: float
    prices: Mapping[str, float]

    @property
    def gap(self) -> float:
        """By which share of the bound the value may be too low; 0 if it is the best there is."""
        return max(0.0, 1.0 - self.value / self.bound) if self.bound > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """Where each job should run, and why.

    Attributes:
        targets: The wanted placement of every job that should hold accelerators. A running job
            left out should give its accelerators back.
        reasons: A reason for every unfinished job, whether it has a target or waits.
        optimality: How good it is, where the policy has a measure for that.
        proposal: What became of what a longer search proposed; None if nothing was.
    """

    targets: Mapping[JobUid, Placement]
    reasons: Mapping[JobUid, Reason]
    optimality: Optimality | None = None
    proposal: ProposalUse | None = None


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a decision, or the orders that follow from it, would break.

    Attributes:
        text: A sentence.
        jobs: Those whose targets break it: it holds again where they keep what they have. Empty
            where nobody can say whose do, so that nothing of the decision can be trusted.
    """

    text: str
    jobs: tuple[JobUid, ...] = ()


class Policy(Protocol):
    """Decides; pure, without memory."""

    def __call__(self, snapshot: ClusterSnapshot) -> Decision:
        """Where each job should run.

        Args:
            snapshot: All that was known at one instant.
        """
        ...


@runtime_checkable
class CheckedPolicy(Policy, Protocol):
    """A policy that promises more than every policy must, and can tell whether it keeps that."""

    def violations(self, snapshot: ClusterSnapshot, decision: Decision) -> Iterable[Violation]:
        """Everything that the decision breaks of it.

        Args:
            snapshot: What was decided about.
            decision: What was decided.
        """
        ...


@runtime_checkable
class ExplainingPolicy(Policy, Protocol):
    """A policy that can say more of a job than the reason that it decided by."""

    def explanation(self, snapshot: ClusterSnapshot, uid: JobUid) -> Sequence[str]:
        """Why the job gets what it gets, or nothing: sentences with numbers, for people. Asked
        beside the loop, so it shares nothing with what decides.

        Args:
            snapshot: The cluster.
            uid: The job.
        """
        ...


@runtime_checkable
class TunablePolicy(Policy, Protocol):
    """A policy with knobs, which it finds in the snapshot that it decides about."""

    @property
    def knobs(self) -> Sequence[Knob]:
        """What people may turn."""
        ...


@runtime_checkable
class RememberingPolicy(Policy, Protocol):
    """A policy that remembers what it worked out, so that two threads must not ask the same one."""

    def apart(self) -> Policy:
        """One that decides the same and shares nothing that changes, for questions beside the
        loop.
        """
        ...


@runtime_checkable
class SearchingPolicy(Policy, Protocol):
    """A policy for which it can be worth it to search for longer than a round may take. What is
    found is proposed to it in a later snapshot.
    """

    def wants_search(self, knobs: Mapping[str, float], optimality: Optimality) -> bool:
        """Whether a search could gain enough.

        Args:
            knobs: What people set, by whole name.
            optimality: How good its last decision was.
        """
        ...

    def search(
        self, snapshot: ClusterSnapshot, made_of: SequenceNumber, stopped: Callable[[], bool]
    ) -> Proposal | None:
        """Something better than it would decide at once; None if it finds nothing that gains
        enough. May take long. Equal snapshots are searched equally, unless it is stopped.

        Args:
            snapshot: The cluster.
            made_of: Last event that the snapshot knows.
            stopped: Asked now and then: whether nobody waits for it any more. It ends soon then,
                with None.
        """
        ...
