"""Nouns: protobuf <-> domain. Reading a message checks every field of it.

Names that a newer or older agent may send and this version does not know (outcomes, reasons)
are mapped to the nearest known ones and kept in the message, never refused.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.event import (
    AcceleratorHealthChanged,
    AttemptReport,
    CheckpointMissed,
    JobProgressed,
    NodeRegistered,
    PlanChanged,
    PlanObserved,
    PlanRefused,
    RendezvousBound,
    UnitExited,
    UnitStarted,
)
from controlplane.domain.ids import AcceleratorId, Attempt, JobUid, NodeId, QueueName
from controlplane.domain.launch import Launch
from controlplane.domain.node import Accelerator, Node, Taint
from controlplane.domain.observation import Observation
from controlplane.domain.placement import LaunchUnit
from controlplane.domain.preemption import Preemption
from controlplane.domain.queue import Queue
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import Intent, Outcome, Progress, RunningUnit, UnitExit
from controlplane.domain.switch_price import SwitchPrice
from controlplane.wire.violations import Checks
from headrace.api.generated import admin_pb2, common_pb2, nodes_pb2
from headrace.api.measured_plan import row_from_wire, row_to_wire
from headrace.api.profile_rows import flat, unsound_in

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
NAME_RULE = "a DNS name: 1 to 253 of a-z, 0-9, '-' and '.', beginning and ending with a-z or 0-9"
ACCELERATOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}")
UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
UID_RULE = "1 to 128 letters, digits, '.', '_' or '-'"
_ISLAND_MOST = 64
_INT32_MOST = 2**31 - 1
_REASONS = {code.value: code for code in ReasonCode}
_OUTCOMES = {outcome.value: outcome for outcome in Outcome}
_INTENTS = {
    Intent.RUN: nodes_pb2.Launch.INTENT_RUN,
    Intent.STOP: nodes_pb2.Launch.INTENT_STOP,
    Intent.END: nodes_pb2.Launch.INTENT_END,
}


def timestamp(at: Instant | None) -> Timestamp | None:
    """An instant for the wire; None and the zero instant stay absent."""
    if not at:
        return None
    return Timestamp(seconds=at // SECOND, nanos=at % SECOND)


def instant(stamp: Timestamp) -> Instant:
    """The instant of a timestamp; 0 for an absent one."""
    return Instant(stamp.seconds * SECOND + stamp.nanos)


def reason_to_wire(reason: Reason | None) -> common_pb2.Reason | None:
    """A reason with its numbers."""
    if reason is None:
        return None
    return common_pb2.Reason(
        code=reason.code.value,
        message=reason.message,
        wanted=reason.wanted,
        available=reason.available,
        holders=reason.holders,
        more_holders=reason.more_holders,
        type=reason.type,
        behind=reason.behind,
        preemption=_preemption_to_wire(reason.preemption),
    )


def _preemption_to_wire(facts: Preemption | None) -> common_pb2.Preemption | None:
    if facts is None:
        return None
    return common_pb2.Preemption(
        uid=facts.uid,
        queue=facts.queue,
        priority=facts.priority,
        preempted_queue=facts.preempted_queue,
        preempted_priority=facts.preempted_priority,
    )


def reason_from_wire(reason: common_pb2.Reason) -> Reason:
    """A reason that an agent gave. A code that is unknown here becomes RankFailed and is kept
    at the head of the message.
    """
    code = _REASONS.get(reason.code)
    message = reason.message
    if code is None:
        code = ReasonCode.RANK_FAILED
        message = f"{reason.code}: {message}" if reason.code else message
    return Reason(
        code,
        message,
        reason.wanted,
        reason.available,
        tuple(JobUid(holder) for holder in reason.holders),
        reason.more_holders,
        reason.type,
        JobUid(reason.behind),
    )


def unit_to_wire(unit: LaunchUnit) -> common_pb2.LaunchUnit:
    """A launch unit."""
    return common_pb2.LaunchUnit(
        index=unit.index,
        node=unit.node,
        accelerators=unit.accelerators,
        first_rank=unit.first_rank,
        cpu_cores=unit.cpu_cores,
        host_memory_bytes=unit.host_memory_bytes,
        joins=unit.joins,
    )


def progress_to_wire(progress: Progress, steps_total: int) -> common_pb2.Progress:
    """How far a job has come, out of ``steps_total``."""
    return common_pb2.Progress(
        step=progress.step,
        steps_total=steps_total,
        checkpoint_step=progress.checkpoint_step,
        loss=progress.loss,
        step_seconds=progress.step_seconds,
        reported_at=timestamp(progress.at),
    )


def running_unit_to_wire(unit: RunningUnit) -> nodes_pb2.RunningUnit:
    """A unit that is alive on a node."""
    return nodes_pb2.RunningUnit(
        uid=unit.uid, attempt=unit.attempt, unit=unit.unit, accelerators=unit.accelerators
    )


def node_to_wire(node: Node) -> nodes_pb2.Node:
    """A node as its agent described it."""
    return nodes_pb2.Node(
        name=node.id,
        accelerators=[
            nodes_pb2.Accelerator(
                id=accelerator.id,
                type=accelerator.type,
                memory_bytes=accelerator.memory_bytes,
                cpu_cores=accelerator.cpu_cores,
                host_memory_bytes=accelerator.host_memory_bytes,
                unhealthy=accelerator.unhealthy,
                island=accelerator.island,
            )
            for accelerator in node.accelerators
        ],
        labels=dict(node.labels),
        taints=[nodes_pb2.Taint(key=taint.key, value=taint.value) for taint in node.taints],
        address=node.address,
        agent_version=node.agent_version,
    )


def _accelerator(wire: nodes_pb2.Accelerator, path: str, checks: Checks) -> Accelerator:
    checks.wants(
        ACCELERATOR.fullmatch(wire.id) is not None,
        f"{path}.id",
        "a GPU UUID or a stable slot name of at most 128 characters without spaces",
        wire.id,
    )
    checks.wants(bool(wire.type), f"{path}.type", "a type such as cpu", wire.type)
    checks.wants(wire.memory_bytes >= 0, f"{path}.memory_bytes", "0 or more", wire.memory_bytes)
    checks.wants(
        wire.host_memory_bytes >= 0,
        f"{path}.host_memory_bytes",
        "0 or more",
        wire.host_memory_bytes,
    )
    checks.wants(
        len(wire.island) <= _ISLAND_MOST,
        f"{path}.island",
        f"a name of at most {_ISLAND_MOST} characters",
        wire.island,
    )
    checks.wants(
        all(core >= 0 for core in wire.cpu_cores),
        f"{path}.cpu_cores",
        "core numbers from 0",
        list(wire.cpu_cores),
    )
    return Accelerator(
        id=AcceleratorId(wire.id),
        type=wire.type,
        memory_bytes=wire.memory_bytes,
        cpu_cores=tuple(wire.cpu_cores),
        host_memory_bytes=wire.host_memory_bytes,
        unhealthy=wire.unhealthy,
        island=wire.island,
    )


def _node(wire: nodes_pb2.Node, checks: Checks) -> Node:
    checks.wants(NAME.fullmatch(wire.name) is not None, "node.name", NAME_RULE, wire.name)
    accelerators = tuple(
        _accelerator(accelerator, f"node.accelerators[{index}]", checks)
        for index, accelerator in enumerate(wire.accelerators)
    )
    ids = [accelerator.id for accelerator in accelerators]
    checks.wants(len(set(ids)) == len(ids), "node.accelerators", "each id once", ids)
    for index, taint in enumerate(wire.taints):
        checks.wants(bool(taint.key), f"node.taints[{index}].key", "a key", taint.key)
    checks.wants(all(wire.labels), "node.labels", "keys that are not empty", dict(wire.labels))
    return Node(
        id=NodeId(wire.name),
        accelerators=accelerators,
        labels=tuple(sorted(wire.labels.items())),
        taints=tuple(Taint(taint.key, taint.value) for taint in wire.taints),
        address=wire.address,
        agent_version=wire.agent_version,
    )


def _attempt(uid: str, attempt: int, path: str, checks: Checks) -> tuple[JobUid, Attempt]:
    checks.wants(UID.fullmatch(uid) is not None, f"{path}.uid", UID_RULE, uid)
    checks.wants(attempt >= 1, f"{path}.attempt", "an attempt number from 1", attempt)
    return JobUid(uid), Attempt(attempt)


def registration(request: nodes_pb2.RegisterNodeRequest, at: Instant) -> NodeRegistered:
    """The event that a registration is.

    Raises:
        InvalidMessageError: A field is not as it must be.
    """
    checks = Checks()
    node = _node(request.node, checks)
    running = []
    for index, unit in enumerate(request.running):
        path = f"running[{index}]"
        uid, attempt = _attempt(unit.uid, unit.attempt, path, checks)
        checks.wants(unit.unit >= 0, f"{path}.unit", "a unit index from 0", unit.unit)
        slots = tuple(AcceleratorId(slot) for slot in unit.accelerators)
        running.append(RunningUnit(uid, attempt, unit.unit, slots))
    highest = tuple(
        _attempt(seen.uid, seen.attempt, f"highest_attempts[{index}]", checks)
        for index, seen in enumerate(request.highest_attempts)
    )
    checks.wants(
        request.highest_term >= 0, "highest_term", "0 or a term once obeyed", request.highest_term
    )
    checks.finish()
    return NodeRegistered(node, tuple(running), highest, at)


def _progress(wire: common_pb2.Progress, path: str, at: Instant, checks: Checks) -> Progress:
    for field in ("step", "checkpoint_step", "step_seconds"):
        number = getattr(wire, field)
        checks.wants(number >= 0, f"{path}.{field}", "0 or more", number)
    return Progress(
        step=wire.step,
        checkpoint_step=wire.checkpoint_step,
        # A loss that is not a number is told by the rank's failure, and JSON cannot hold it.
        loss=wire.loss if wire.HasField("loss") and _is_finite(wire.loss) else None,
        step_seconds=wire.step_seconds if _is_finite(wire.step_seconds) else 0.0,
        at=at,
    )


def _is_finite(number: float) -> bool:
    return number - number == 0


def _exits(
    wire: Iterable[nodes_pb2.UnitExited], node: NodeId, at: Instant, checks: Checks
) -> list[UnitExited]:
    exits = []
    for index, exited in enumerate(wire):
        path = f"exited[{index}]"
        uid, attempt = _attempt(exited.uid, exited.attempt, path, checks)
        checks.wants(exited.unit >= 0, f"{path}.unit", "a unit index from 0", exited.unit)
        checks.wants(exited.step >= 0, f"{path}.step", "0 or more", exited.step)
        checks.wants(bool(exited.outcome), f"{path}.outcome", "an outcome", exited.outcome)
        reason = reason_from_wire(exited.reason) if exited.HasField("reason") else None
        outcome = _OUTCOMES.get(exited.outcome)
        if outcome is None:
            outcome = Outcome.FAILED
            reason = reason or Reason(ReasonCode.RANK_FAILED, f"outcome {exited.outcome}")
        end = UnitExit(exited.unit, outcome, exited.step, reason, at)
        exits.append(UnitExited(uid, attempt, end, node, at))
    return exits


def _plans(
    wire: Iterable[nodes_pb2.PlanReport], node: NodeId, at: Instant, checks: Checks
) -> Iterator[PlanChanged | PlanRefused]:
    for index, told in enumerate(wire):
        path = f"plans[{index}]"
        uid, attempt = _attempt(told.uid, told.attempt, path, checks)
        checks.wants(bool(told.after), f"{path}.after", "the plan that was asked for", told.after)
        if told.refused:
            yield PlanRefused(uid, attempt, told.after, told.refused, node, at)
            continue
        checks.wants(told.step >= 0, f"{path}.step", "0 or more", told.step)
        phases = tuple((phase.name, phase.seconds) for phase in told.phases)
        for name, took in (("stood_still_seconds", told.stood_still_seconds), *phases):
            sound = took >= 0 and _is_finite(took)
            checks.wants(sound, f"{path}.{name}", "a number of seconds", took)
        still = told.stood_still_seconds
        yield PlanChanged(uid, attempt, told.before, told.after, told.step, still, phases, node, at)


def _missed(
    wire: Iterable[nodes_pb2.CheckpointMissed], node: NodeId, at: Instant, checks: Checks
) -> Iterator[CheckpointMissed]:
    for index, told in enumerate(wire):
        path = f"missed[{index}]"
        uid, attempt = _attempt(told.uid, told.attempt, path, checks)
        checks.wants(told.step >= 0, f"{path}.step", "0 or more", told.step)
        yield CheckpointMissed(uid, attempt, told.step, reason_from_wire(told.reason), node, at)


def _observed(
    wire: Iterable[nodes_pb2.PlanObserved], node: NodeId, at: Instant, checks: Checks
) -> Iterator[PlanObserved]:
    for index, told in enumerate(wire):
        path = f"observed[{index}]"
        uid, attempt = _attempt(told.uid, told.attempt, path, checks)
        checks.wants(told.step >= 0, f"{path}.step", "0 or more", told.step)
        try:
            row = row_from_wire(told.measured)
        except ValueError:
            continue  # a status that only a newer agent knows
        unsound = unsound_in(row)
        field = f"{path}.measured.{unsound}"
        checks.wants(not unsound, field, "what can be measured", flat(row).get(unsound))
        yield PlanObserved(uid, attempt, told.step, row, node, at)


def observation_to_wire(known: Observation) -> admin_pb2.Observation:
    """What a job told last of a plan, dated."""
    stamp = timestamp(known.at) or Timestamp()
    # What was imported may have been measured long before.
    date = (known.who and known.row.date) or stamp.ToJsonString()
    return admin_pb2.Observation(
        uid=known.uid,
        attempt=known.attempt,
        step=known.step,
        at=stamp,
        measured=row_to_wire(replace(known.row, date=date)),
        who=known.who,
    )


def switch_price_to_wire(known: SwitchPrice) -> admin_pb2.SwitchPrice:
    """What switches of one sort cost."""
    return admin_pb2.SwitchPrice(
        model=known.model,
        accelerators_before=known.accelerators_before,
        accelerators_after=known.accelerators_after,
        kind=known.kind,
        count=known.count,
        seconds_total=known.seconds,
        median_seconds=known.quantile(0.5),
        p90_seconds=known.quantile(0.9),
        highest_seconds=known.quantile(1),
        last_at=timestamp(known.last_at),
    )


def report_events(
    request: nodes_pb2.ReportRequest, at: Instant
) -> list[AttemptReport | AcceleratorHealthChanged]:
    """The events that a report holds, in the order in which they can be folded.

    Raises:
        InvalidMessageError: A field is not as it must be.
    """
    checks = Checks()
    node = NodeId(request.node)
    events: list[AttemptReport | AcceleratorHealthChanged] = []
    for index, bound in enumerate(request.rendezvous):
        path = f"rendezvous[{index}]"
        uid, attempt = _attempt(bound.uid, bound.attempt, path, checks)
        checks.wants(":" in bound.address, f"{path}.address", "host:port", bound.address)
        events.append(RendezvousBound(uid, attempt, bound.address, at, node))
    for index, started in enumerate(request.started):
        path = f"started[{index}]"
        uid, attempt = _attempt(started.uid, started.attempt, path, checks)
        checks.wants(started.unit >= 0, f"{path}.unit", "a unit index from 0", started.unit)
        events.append(UnitStarted(uid, attempt, started.unit, at, node))
    for index, told in enumerate(request.progress):
        path = f"progress[{index}]"
        uid, attempt = _attempt(told.uid, told.attempt, path, checks)
        progress = _progress(told.progress, f"{path}.progress", at, checks)
        losses = tuple((p.step, p.loss) for p in told.losses)
        checks.wants(all(step >= 0 for step, _ in losses), f"{path}.losses", "steps from 0", losses)
        events.append(JobProgressed(uid, attempt, progress, losses, at, node))
    events.extend(_plans(request.plans, node, at, checks))
    events.extend(_missed(request.missed, node, at, checks))
    # Behind the plans: placed where the ranks are that it is about.
    events.extend(_observed(request.observed, node, at, checks))
    events.extend(_exits(request.exited, node, at, checks))
    for index, health in enumerate(request.health):
        slot = health.accelerator
        checks.wants(
            ACCELERATOR.fullmatch(slot) is not None,
            f"health[{index}].accelerator",
            "an accelerator of the node",
            slot,
        )
        events.append(AcceleratorHealthChanged(node, AcceleratorId(slot), health.problem, at))
    checks.finish()
    return events


def launch_to_wire(launch: Launch) -> nodes_pb2.Launch:
    """What a node is told to run."""
    return nodes_pb2.Launch(
        uid=launch.uid,
        attempt=launch.attempt,
        intent=_INTENTS[launch.intent],
        job_name=launch.job_name,
        namespace=launch.namespace,
        manifest_json=launch.manifest_json,
        plan=str(launch.plan) if launch.plan is not None else "",
        units=[unit_to_wire(unit) for unit in launch.units],
        ranks_total=launch.ranks_total,
        units_total=launch.units_total,
        rendezvous=launch.rendezvous,
        generation=launch.generation,
        purge=launch.purge,
        own_pod=launch.own_pod,
    )


def queue_from_wire(wire: common_pb2.Queue) -> Queue:
    """A queue as someone wants it. What the server fills (held, running, waiting) is not read.

    Raises:
        InvalidMessageError: A field is not as it must be.
    """
    checks = Checks()
    checks.wants(NAME.fullmatch(wire.name) is not None, "queue.name", NAME_RULE, wire.name)
    quota = wire.quota_accelerators if wire.HasField("quota_accelerators") else None
    checks.wants(
        quota is None or quota >= 0, "queue.quota_accelerators", "0 or more, or none", quota
    )
    borrowing = wire.borrowing_accelerators
    checks.wants(
        borrowing >= -1,
        "queue.borrowing_accelerators",
        "0 or more, or -1 for no limit",
        borrowing,
    )
    checks.wants(
        all(wire.submitters), "queue.submitters", "identities that are not empty", wire.submitters
    )
    checks.wants(
        all(NAME.fullmatch(namespace) for namespace in wire.namespaces),
        "queue.namespaces",
        f"names of namespaces: {NAME_RULE}",
        ", ".join(wire.namespaces),
    )
    checks.finish()
    return Queue(
        QueueName(wire.name),
        quota,
        tuple(sorted(set(wire.submitters))),
        borrowing if borrowing >= 0 else None,
        tuple(sorted(set(wire.namespaces))),
    )


def queue_to_wire(
    queue: Queue,
    *,
    held_accelerators: int = 0,
    jobs_running: int = 0,
    jobs_waiting: int = 0,
    waiting_accelerators: int = 0,
) -> common_pb2.Queue:
    """A queue with what it holds now."""
    borrowing = queue.borrowing_accelerators
    return common_pb2.Queue(
        name=queue.name,
        quota_accelerators=queue.quota_accelerators,
        borrowing_accelerators=-1 if borrowing is None else borrowing,
        submitters=queue.submitters,
        namespaces=queue.namespaces,
        held_accelerators=held_accelerators,
        jobs_running=jobs_running,
        jobs_waiting=jobs_waiting,
        waiting_accelerators=min(waiting_accelerators, _INT32_MOST),
    )
