"""Between the agent's values and the messages of ``nodes.proto``."""

import math
from collections.abc import Mapping

from agent.control_folder import ChangeLine, MissedLine, ObservedLine
from agent.desired import Assignment, UnitEnd, UnitKey, WantedLaunch, WantedUnit
from agent.outbox import Batch, PendingProgress
from controlplane.domain.node import Accelerator
from controlplane.domain.record import Intent
from headrace.api.generated import common_pb2, nodes_pb2
from headrace.api.measured_plan import row_to_wire

_INTENTS = {
    nodes_pb2.Launch.INTENT_RUN: Intent.RUN,
    nodes_pb2.Launch.INTENT_STOP: Intent.STOP,
    nodes_pb2.Launch.INTENT_END: Intent.END,
}


def assignment(message: nodes_pb2.WatchAssignmentsResponse) -> Assignment:
    """What the control plane wants. A launch with an intent that is not known is left alone."""
    launches = (_launch(launch) for launch in message.launches)
    return Assignment(
        message.term, message.number, tuple(launch for launch in launches if launch is not None)
    )


def _launch(message: nodes_pb2.Launch) -> WantedLaunch | None:
    intent = _INTENTS.get(message.intent)
    if message.purge:
        intent = intent or Intent.END
    if intent is None or "/" in message.uid or message.uid in ("", ".", ".."):
        return None
    return WantedLaunch(
        uid=message.uid,
        attempt=message.attempt,
        intent=intent,
        units=tuple(_unit(unit) for unit in message.units),
        job_name=message.job_name,
        namespace=message.namespace,
        manifest_json=message.manifest_json,
        plan=message.plan,
        ranks_total=message.ranks_total,
        units_total=message.units_total,
        rendezvous=message.rendezvous,
        purge=message.purge,
        own_pod=message.own_pod,
    )


def _unit(message: common_pb2.LaunchUnit) -> WantedUnit:
    return WantedUnit(
        index=message.index,
        accelerators=tuple(message.accelerators),
        first_rank=message.first_rank,
        cpu_cores=tuple(message.cpu_cores),
        host_memory_bytes=message.host_memory_bytes,
        joins=message.joins,
    )


def accelerator(known: Accelerator) -> nodes_pb2.Accelerator:
    """An accelerator as it is registered."""
    return nodes_pb2.Accelerator(
        id=known.id,
        type=known.type,
        memory_bytes=known.memory_bytes,
        cpu_cores=known.cpu_cores,
        host_memory_bytes=known.host_memory_bytes,
        unhealthy=known.unhealthy,
        island=known.island,
    )


def running(key: UnitKey, slots: tuple[str, ...]) -> nodes_pb2.RunningUnit:
    """A unit that is alive."""
    return nodes_pb2.RunningUnit(
        uid=key.uid, attempt=key.attempt, unit=key.unit, accelerators=slots
    )


def report(
    node: str, applied: tuple[int, int], batch: Batch, steps_total: Mapping[str, int]
) -> nodes_pb2.ReportRequest:
    """One report."""
    told = [(key, line) for key, pending in batch.plans for line in pending.lines]
    return nodes_pb2.ReportRequest(
        node=node,
        applied_term=applied[0],
        applied_number=applied[1],
        started=[
            nodes_pb2.UnitStarted(uid=key.uid, attempt=key.attempt, unit=key.unit)
            for key in batch.started
        ],
        rendezvous=[
            nodes_pb2.RendezvousBound(uid=key.uid, attempt=key.attempt, address=address)
            for key, address in batch.rendezvous
        ],
        progress=[
            _progress(key, progress, steps_total.get(key.uid, 0))
            for key, progress in batch.progress
        ],
        plans=[_plan(key, line) for key, line in told if isinstance(line, ChangeLine)],
        missed=[_missed(key, line) for key, line in told if isinstance(line, MissedLine)],
        observed=[_observed(key, line) for key, line in told if isinstance(line, ObservedLine)],
        exited=[_exited(key, end) for key, end in batch.exits],
        health=[
            nodes_pb2.AcceleratorHealth(accelerator=slot, problem=problem)
            for slot, problem in batch.health
        ],
    )


def _progress(key: UnitKey, pending: PendingProgress, total: int) -> nodes_pb2.ProgressReport:
    last = pending.last
    loss = last.loss if last.loss is not None and math.isfinite(last.loss) else None
    return nodes_pb2.ProgressReport(
        uid=key.uid,
        attempt=key.attempt,
        progress=common_pb2.Progress(
            step=last.step,
            steps_total=total,
            checkpoint_step=last.checkpoint_step,
            loss=loss,
            step_seconds=last.step_seconds,
        ),
        losses=[nodes_pb2.StepLoss(step=step, loss=loss) for step, loss in pending.losses],
    )


def _plan(key: UnitKey, line: ChangeLine) -> nodes_pb2.PlanReport:
    return nodes_pb2.PlanReport(
        uid=key.uid,
        attempt=key.attempt,
        before=line.before,
        after=line.after,
        step=line.step,
        stood_still_seconds=line.stood_still_seconds,
        phases=[common_pb2.Phase(name=name, seconds=took) for name, took in line.phases],
        refused=line.refused,
    )


def _missed(key: UnitKey, line: MissedLine) -> nodes_pb2.CheckpointMissed:
    return nodes_pb2.CheckpointMissed(
        uid=key.uid,
        attempt=key.attempt,
        step=line.step,
        reason=common_pb2.Reason(code=line.code, message=line.message),
    )


def _observed(key: UnitKey, line: ObservedLine) -> nodes_pb2.PlanObserved:
    return nodes_pb2.PlanObserved(
        uid=key.uid, attempt=key.attempt, step=line.step, measured=row_to_wire(line.row)
    )


def _exited(key: UnitKey, end: UnitEnd) -> nodes_pb2.UnitExited:
    told = None
    if end.reason is not None:
        told = common_pb2.Reason(code=end.reason.code.value, message=end.reason.message)
    return nodes_pb2.UnitExited(
        uid=key.uid,
        attempt=key.attempt,
        unit=key.unit,
        outcome=end.outcome.value,
        step=end.step,
        reason=told,
    )
