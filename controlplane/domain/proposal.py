"""What a longer search beside the loop found, and what a policy makes of it.

A round is decided at once and by little work. A longer search looks at the same cluster for better
places, while rounds go on; what it finds is of a state that has passed by then. So it is no
decision: it is proposed, and the policy checks it against the state that it meets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from controlplane.domain.clock import Instant, seconds
from controlplane.domain.ids import JobUid, NodeId, SequenceNumber
from headrace.api.plan import ExecutionPlan

PROPOSAL_KEPT_SECONDS = 120.0
"""So long after the state that it was made of a proposal is remembered. It is checked anew in every
round until then, and the older it is the less of it holds.
"""

_REPEATED_AFTER_SECONDS = PROPOSAL_KEPT_SECONDS / 2
"""The same is proposed again after so long, so that it is not forgotten while it holds."""


@dataclass(frozen=True, slots=True)
class ProposedTarget:
    """Where a job should go.

    Attributes:
        uid: The job.
        kind: Type of the accelerators; empty if it should give back what it has.
        plan: The plan; None if it should give back what it has.
        parts: How many of each node; empty if it should give back what it has.
    """

    uid: JobUid
    kind: str = ""
    plan: ExecutionPlan | None = None
    parts: tuple[tuple[NodeId, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a search found to be better than the round of the same state.

    Attributes:
        made_of: Last event of the state that was searched.
        made_at: Instant of that state.
        value: What the round would have been worth with it, by the policy's own measure.
        value_before: What it was worth without.
        bound: What no round could have been worth more than.
        work_units: Work that was done for it: nodes of the search tree.
        targets: Jobs that should start, change or make room; the others keep what they have.
    """

    made_of: SequenceNumber
    made_at: Instant
    value: float
    value_before: float
    bound: float
    work_units: int
    targets: tuple[ProposedTarget, ...]

    @property
    def gain(self) -> float:
        """By which share the round was worth more with it."""
        return share_gained(self.value_before, self.value)

    def is_outdated(self, at: Instant) -> bool:
        """Whether it is too old to be remembered at an instant."""
        return at - self.made_at > seconds(PROPOSAL_KEPT_SECONDS)

    def repeats(self, known: "Proposal") -> bool:
        """Whether it says the same as one that is remembered and will be for a good while yet.
        That one is tried in every round: another one of thousands of jobs would only fill the log.
        """
        young = self.made_at - known.made_at < seconds(_REPEATED_AFTER_SECONDS)
        return young and self.targets == known.targets


def share_gained(before: float, after: float) -> float:
    """By which share more that is; 0 where there was nothing."""
    return (after - before) / abs(before) if before else 0.0


class Verdict(StrEnum):
    """What became of a proposal in a round."""

    TAKEN = "Taken"
    WORTH_NO_MORE = "WorthNoMore"
    """What is left of it is worth no more than the round without, switches paid."""
    NOTHING_LEFT = "NothingLeft"
    """Its jobs are gone, have what was proposed, or cannot be changed now."""
    NOT_NOW = "NotNow"
    """Nothing may be dealt anew in this state."""


@dataclass(frozen=True, slots=True)
class ProposalUse:
    """What a policy made of a proposal.

    Attributes:
        made_of: Last event of the state that it was made of.
        verdict: What became of it.
        text: The same as a sentence, with numbers.
        gained: By which share the round is worth more with it; 0 if it was not taken.
        jobs: Jobs that are decided otherwise for it; empty if it was not taken.
        dropped: Of its targets, how many did not hold any more, by why.
    """

    made_of: SequenceNumber
    verdict: Verdict
    text: str
    gained: float = 0.0
    jobs: frozenset[JobUid] = frozenset()
    dropped: Mapping[str, int] = field(default_factory=dict)
