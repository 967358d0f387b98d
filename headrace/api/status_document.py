"""A job's status as the API tells it -> ``status`` as its object has it in a manifest. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.generated import common_pb2, jobs_pb2


def iso(stamp: Timestamp) -> str | None:
    """A timestamp as Kubernetes writes it; None if it is not set."""
    return instant(stamp.seconds) if stamp.seconds else None


def instant(seconds: float) -> str:
    """An instant in UTC, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def status_document(status: jobs_pb2.JobStatus) -> dict[str, Any]:
    """A job's status as ``status`` of a manifest has it; what is not known is left out."""
    done = status.progress
    conditions = [
        {
            "type": each.type,
            "status": each.status,
            "reason": each.reason,
            "message": each.message,
            "observedGeneration": each.observed_generation,
            "lastTransitionTime": iso(each.last_transition_time),
        }
        for each in status.conditions
    ]
    document: dict[str, Any] = {
        "observedGeneration": status.observed_generation,
        "conditions": [_present(each) for each in conditions],
        "plan": status.plan,
        "accelerators": sum(len(unit.accelerators) for unit in status.units),
        "nodes": sorted({unit.node for unit in status.units}),
        "attempt": status.attempt,
        "failures": status.failures,
        "reconfigurations": status.reconfigurations,
        "planAskedFor": status.plan_asked_for or None,
        "outOfMemory": [{"plan": each.plan, "type": each.type} for each in status.out_of_memory],
        "suspectedNodes": [_suspected_document(each) for each in status.suspected_nodes],
        "switches": [_switch_document(each) for each in status.switches],
        "progress": _present(
            {
                "step": done.step,
                "stepsTotal": done.steps_total,
                "checkpointStep": done.checkpoint_step,
                "loss": done.loss if done.HasField("loss") else None,
                "stepSeconds": done.step_seconds,
                "reportedAt": iso(done.reported_at),
            }
        ),
        "startedAt": iso(status.first_started_at),
        "finishedAt": iso(status.finished_at),
    }
    if status.HasField("start"):
        document["estimatedStart"] = _estimate_document(status.start)
    if status.HasField("end"):
        document["estimatedEnd"] = _estimate_document(status.end)
    return _present(document)


def _estimate_document(estimate: common_pb2.Estimate) -> dict[str, Any]:
    return _present(
        {
            "low": instant(estimate.low),
            "median": instant(estimate.median) if estimate.HasField("median") else None,
            "high": instant(estimate.high),
            "coverage": estimate.coverage,
            "madeAt": iso(estimate.made_at),
            "outcomesMissing": estimate.outcomes_missing,
        }
    )


def _suspected_document(suspected: jobs_pb2.SuspectedNode) -> dict[str, Any]:
    return {
        "node": suspected.node,
        "reason": suspected.reason,
        "attempt": suspected.attempt,
        "until": iso(suspected.until),
    }


def _switch_document(switch: jobs_pb2.Switch) -> dict[str, Any]:
    return {
        "kind": switch.kind,
        "before": switch.before,
        "after": switch.after,
        "acceleratorsBefore": switch.accelerators_before,
        "acceleratorsAfter": switch.accelerators_after,
        "reason": switch.reason,
        "step": switch.step,
        "orderedAt": iso(switch.ordered_at),
        "doneAt": iso(switch.done_at),
        "stoodStillSeconds": switch.stood_still_seconds,
        "phases": [{"name": each.name, "tookSeconds": each.seconds} for each in switch.phases],
    }


def _present(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value is not None}
