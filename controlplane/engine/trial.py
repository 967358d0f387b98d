"""What would be decided under other settings: two cycles on one state, side by side. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from controlplane.domain.action import Action
from controlplane.domain.clock import Instant
from controlplane.domain.ids import JobUid
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Policy, PolicySettings, RememberingPolicy
from controlplane.domain.reason import Reason
from controlplane.domain.record import JobRecord
from controlplane.engine.cycle import Outcome, run_cycle
from controlplane.engine.state import ClusterState


class DifferenceKind(StrEnum):
    """In which way a job would fare differently."""

    STARTS = "Starts"
    WAITS = "Waits"
    STAYS = "Stays"
    PUT_OFF = "PutOff"
    GROWS = "Grows"
    SHRINKS = "Shrinks"
    CHANGES_PLAN = "ChangesPlan"
    MOVES = "Moves"
    DIFFERS = "Differs"


@dataclass(frozen=True, slots=True)
class Fate:
    """What a decision does about a job.

    Attributes:
        target: Where it should run; None for nowhere.
        reason: What the policy says of it.
        due: What the rules order about it, whoever decides: ends, failures, and that it is
            forgotten.
    """

    target: Placement | None
    reason: Reason | None
    due: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """A job that would fare differently.

    Attributes:
        record: The job.
        kind: In which way, from ``before`` to ``after``.
        before: Under the present settings.
        after: Under those that are tried.
    """

    record: JobRecord
    kind: DifferenceKind
    before: Fate
    after: Fate


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of trying settings.

    Attributes:
        differences: In order of submission.
        refused: Why nothing could be decided under them; empty if it could.
    """

    differences: tuple[Difference, ...] = ()
    refused: str = ""


def tried(
    state: ClusterState, now: Instant, policies: Mapping[str, Policy], settings: PolicySettings
) -> Trial:
    """What the next decision would do differently. May run beside the loop: it shares nothing
    with it that changes.

    Args:
        state: The cluster.
        now: When it would be decided.
        policies: By name.
        settings: What is tried.
    """
    apart = {
        name: policy.apart() if isinstance(policy, RememberingPolicy) else policy
        for name, policy in policies.items()
    }
    present = run_cycle(state, now, apart, state.term)
    then = run_cycle(state.under(settings), now, apart, state.term)
    if then.refused_whole:
        why = f"policy {settings.policy} gave no usable decision: {then.refused_whole[0]}"
        return Trial(refused=why)
    fates, others = _fates(state, present), _fates(state, then)
    differences = (
        Difference(record, kind, fates[uid], others[uid])
        for uid, record in state.jobs.items()
        if (kind := _kind(record, fates[uid], others[uid])) is not None
    )
    return Trial(tuple(differences))


def _fates(state: ClusterState, outcome: Outcome) -> dict[JobUid, Fate]:
    due: dict[JobUid, list[Action]] = {}
    for action in outcome.due:
        due.setdefault(action.uid, []).append(action)
    return {
        uid: Fate(outcome.targets.get(uid), outcome.said.get(uid), tuple(due.get(uid, ())))
        for uid in state.jobs
    }


def _kind(record: JobRecord, before: Fate, after: Fate) -> DifferenceKind | None:
    """None if there is no difference that anybody would notice: which of a node's accelerators a
    job gets is none.
    """
    one, other = before.target, after.target
    runs = record.attempt is not None
    if one is None or other is None:
        if one is not None:
            return DifferenceKind.PUT_OFF if runs else DifferenceKind.WAITS
        if other is not None:
            return DifferenceKind.STAYS if runs else DifferenceKind.STARTS
        return None if before.due == after.due else DifferenceKind.DIFFERS
    if other.accelerator_count != one.accelerator_count:
        grows = other.accelerator_count > one.accelerator_count
        return DifferenceKind.GROWS if grows else DifferenceKind.SHRINKS
    if other.plan != one.plan:
        return DifferenceKind.CHANGES_PLAN
    return DifferenceKind.MOVES if _by_node(other) != _by_node(one) else None


def _by_node(placement: Placement) -> Counter[str]:
    return Counter(node for node, _ in placement.slots())
