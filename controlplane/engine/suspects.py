"""Which nodes a failure speaks against, and what a job that starts again is told of them. Pure."""

from controlplane.domain.changing import changed
from controlplane.domain.clock import Instant
from controlplane.domain.ids import NodeId
from controlplane.domain.placement import Placement
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import AttemptRecord, JobRecord, Outcome
from controlplane.domain.suspicion import Suspicion, again

Known = tuple[Suspicion, ...]

PERHAPS_THE_NODE = frozenset(
    {ReasonCode.RANK_HUNG, ReasonCode.RANK_LOST, ReasonCode.COMMUNICATION_FAILED}
)
"""Failures that a node, its accelerators or its network may have caused: of other ranks than the
one that says so.
"""

LACKS_SOMETHING = frozenset(
    {ReasonCode.START_REFUSED, ReasonCode.STORE_NOT_SHARED, ReasonCode.CHECKPOINT_FAILED}
)
"""A rank's node has not what it needs: data, a file, a secret, a store."""


def suspected(record: JobRecord, attempt: AttemptRecord, cause: Reason, at: Instant) -> JobRecord:
    """The job with what the failure says of the nodes that its attempt ran on."""
    if cause.code not in PERHAPS_THE_NODE | LACKS_SOMETHING:
        return record
    known = record.suspicions
    for node in _where(attempt, cause):
        known = again(known, node, cause.code, attempt.number, at)
    return changed(record, suspicions=known)


def _where(attempt: AttemptRecord, cause: Reason) -> tuple[NodeId, ...]:
    """The nodes of ranks that lack something, or did not complain of others; else all nodes."""
    if cause.code in LACKS_SOMETHING:
        lacking = _who_said(attempt, LACKS_SOMETHING)
        accused = [unit.node for unit in attempt.units if unit.index in lacking]
        return tuple(dict.fromkeys(accused or [unit.node for unit in attempt.units]))
    left = {e.unit for e in attempt.exits if e.outcome in (Outcome.STOPPED, Outcome.NEVER_STARTED)}
    units = [unit for unit in attempt.units if unit.index not in left]
    complain = _who_said(attempt, PERHAPS_THE_NODE)
    accused = [unit.node for unit in units if unit.index not in complain]
    if cause.code is ReasonCode.COMMUNICATION_FAILED or not accused:
        # A connection has two ends.
        accused = [unit.node for unit in units]
    return tuple(dict.fromkeys(accused))


def could_not_join(attempt: AttemptRecord, at: Instant, known: Known) -> Known:
    """What is known of nodes once an attempt trains on without the units that were to join it."""
    outside = [unit for unit in attempt.units if unit.index in attempt.outside]
    failed = {e.unit for e in attempt.exits if e.outcome in (Outcome.FAILED, Outcome.LOST)}
    blamed = [unit.node for unit in outside if unit.index in failed]
    for node in dict.fromkeys(blamed or [unit.node for unit in outside]):
        known = again(known, node, ReasonCode.PLAN_REFUSED, attempt.number, at)
    return known


def _who_said(attempt: AttemptRecord, codes: frozenset[ReasonCode]) -> set[int]:
    """The units that failed with one of these reasons."""
    return {
        known.unit
        for known in attempt.exits
        if known.outcome is Outcome.FAILED
        and known.reason is not None
        and known.reason.code in codes
    }


def remark(record: JobRecord, target: Placement, at: Instant) -> str:
    """What a job that starts is told of the nodes that it keeps off, or cannot; often empty."""
    kept_off = [each for each in record.suspicions if at < each.until]
    used = [each for each in kept_off if each.node in target.nodes]
    if used:
        return f"; {_named(used)}, but there is no other room for it"
    return f"; it keeps off {_named(kept_off)}" if kept_off else ""


def _named(suspicions: list[Suspicion]) -> str:
    return ", ".join(
        f"{each.node} (attempt {each.attempt}: {each.code.value})" for each in suspicions
    )
