"""Rows and documents of jobs, nodes and queues, from the messages of the API. Pure."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.generated import admin_pb2, common_pb2, jobs_pb2, nodes_pb2
from headrace.api.racks import RACK_LABEL
from headrace.api.status_document import iso, status_document
from headrace.cli import estimates
from headrace.cli.tables import ELLIPSIS, STAGE_COLOURS, Column, age

_UID_SHOWN = 8
JOB_COLUMNS = (
    Column("NAME", gives_way=1),
    Column("QUEUE", gives_way=2),
    Column("STATE", colours=STAGE_COLOURS),
    Column("PLAN", gives_way=3, wraps=True),
    Column("ACC", right=True),
    Column("PROGRESS", right=True),
    Column("ETA", right=True),
    Column("AGE", right=True),
)
WIDE_JOB_COLUMNS = (
    *JOB_COLUMNS,
    Column("STARTS", right=True),
    Column("COVERAGE", right=True),
    Column("LOSS", right=True),
    Column("STEPS/S", right=True),
    Column("RECONFIGS", right=True),
    Column("FAILURES", right=True),
    Column("UID"),
    Column("REASON", gives_way=4),
)
NODE_COLUMNS: tuple[Column, ...] = (
    Column("NAME", gives_way=1),
    Column("STATE", colours=STAGE_COLOURS),
    Column("HELD", right=True),
    Column("TYPE", gives_way=2),
    Column("RACK", gives_way=3),
    Column("UNHEALTHY", right=True),
    Column("STRAYS", right=True),
)
WIDE_NODE_COLUMNS: tuple[Column, ...] = (
    *NODE_COLUMNS,
    Column("ISLANDS"),
    Column("ADDRESS"),
    Column("AGENT"),
    Column("LABELS", gives_way=4),
    Column("TAINTS", gives_way=5),
)
QUEUE_COLUMNS = (
    Column("NAME", gives_way=1),
    Column("HELD", right=True),
    Column("QUOTA", right=True),
    Column("BORROWS", right=True),
    Column("RUNNING", right=True),
    Column("WAITING", right=True),
    Column("SUBMITTERS", gives_way=2),
    Column("NAMESPACES", gives_way=3),
)
SWITCH_COLUMNS = (
    Column("SWITCH", gives_way=2, wraps=True),
    Column("AGE", right=True),
    Column("STEP", right=True),
    Column("HOW"),
    Column("STOOD STILL", right=True),
    Column("SECONDS", gives_way=1, wraps=True),
)
EVENT_COLUMNS = (
    Column("SEQ", right=True),
    Column("AGE", right=True),
    Column("KIND"),
    Column("OBJECT", gives_way=1),
    Column("MESSAGE", gives_way=2),
)


def moment(stamp: Timestamp) -> float:
    """Seconds since 1970 of a timestamp; 0 if it is not set."""
    return stamp.seconds + stamp.nanos / 1e9


def held(job: jobs_pb2.Job) -> int:
    """Accelerators that the job holds."""
    return sum(len(unit.accelerators) for unit in job.status.units)


def progress(job: jobs_pb2.Job) -> str:
    """Steps done of all, with the share."""
    now = job.status.progress
    if not now.steps_total:
        return _count(now.step) if now.step else "-"
    share = 100 * now.step // now.steps_total
    return f"{_count(now.step)}/{_count(now.steps_total)} {share}%"


def _count(steps: int) -> str:
    """A number of steps in at most five characters."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if steps >= 100 * 10**3 and steps >= size:
            return f"{steps // size}{unit}"
    return str(steps)


def loss(job: jobs_pb2.Job) -> str:
    """The last loss, short."""
    now = job.status.progress
    return f"{now.loss:.4f}" if now.HasField("loss") else "-"


def state(job: jobs_pb2.Job) -> str:
    """Where it stands, in one word."""
    return f"{job.status.stage},going" if job.status.withdrawn else job.status.stage


def out_of_memory(job: jobs_pb2.Job) -> str:
    """The plans that ran out of memory, with the type of accelerator."""
    return ", ".join(f"{each.plan} on {each.type or '?'}" for each in job.status.out_of_memory)


def suspected(job: jobs_pb2.Job, now: float) -> str:
    """The nodes that the job keeps off, with why and for how much longer."""
    return ", ".join(
        f"{each.node} for {age(max(0.0, moment(each.until) - now))} (attempt {each.attempt}: "
        f"{each.reason})"
        for each in job.status.suspected_nodes
    )


def reason(told: common_pb2.Reason) -> str:
    """A reason with its sentence."""
    return f"{told.code}: {told.message}" if told.code and told.message else told.code or "-"


def job_row(job: jobs_pb2.Job, now: float, *, wide: bool = False, named: str = "") -> list[str]:
    """A job as a row of ``JOB_COLUMNS``; ``named`` replaces the plain name."""
    status = job.status
    row = [
        named or job.name,
        job.queue,
        state(job),
        status.plan or "-",
        str(held(job)),
        progress(job),
        estimates.eta(job, now),
        age(now - moment(job.submitted_at)),
    ]
    if wide:
        seconds = status.progress.step_seconds
        row += [
            estimates.starts(job, now),
            estimates.coverage(job),
            loss(job),
            f"{1 / seconds:.2f}" if seconds > 0 and status.units else "-",
            str(status.reconfigurations),
            str(status.failures),
            job.uid,
            _first_line(reason(status.reason)),
        ]
    return row


def _first_line(text: str) -> str:
    """What a row has room for of a reason that ends with a rank's last lines."""
    first, _, more = text.partition("\n")
    return f"{first} {ELLIPSIS}" if more else first


def rack(node: nodes_pb2.Node) -> str:
    """The rack that the node is in, as far as it tells one."""
    return node.labels.get(RACK_LABEL, "") or "-"


def islands(node: nodes_pb2.Node) -> str:
    """How many accelerators each NVLink island of the node has."""
    sizes = Counter(each.island for each in node.accelerators if each.island)
    return "+".join(map(str, sizes.values())) or "-"


def contact(status: admin_pb2.NodeStatus) -> str:
    """Whether a node is heard, and what is kept off it: by people, then by Kubernetes."""
    told = [status.contact, *(["drained"] if status.drained else [])]
    if status.closed and status.closed.lower() not in told:
        told.append(status.closed.lower())
    return ",".join(told)


def node_row(status: admin_pb2.NodeStatus, *, wide: bool = False) -> list[str]:
    """A node as a row of ``NODE_COLUMNS``."""
    node = status.node
    row = [
        node.name,
        contact(status),
        f"{len(status.holders)}/{len(node.accelerators)}",
        ",".join(sorted({each.type for each in node.accelerators})),
        rack(node),
        str(sum(1 for each in node.accelerators if each.unhealthy)),
        str(len(status.strays)),
    ]
    if wide:
        row += [
            islands(node),
            node.address,
            node.agent_version,
            ",".join(f"{key}={value}" for key, value in sorted(node.labels.items())),
            ",".join(f"{taint.key}={taint.value}" for taint in node.taints),
        ]
    return row


def switch_row(switch: jobs_pb2.Switch, now: float) -> list[str]:
    """A change of plan or place as a row of ``SWITCH_COLUMNS``."""
    plans = switch.before
    if switch.after != switch.before:
        plans += f" -> {switch.after}"
    phases = (f"{phase.name.replace('_', ' ')} {phase.seconds:.2f}" for phase in switch.phases)
    return [
        plans,
        age(now - moment(switch.done_at)),
        str(switch.step),
        switch.kind.lower(),
        f"{switch.stood_still_seconds:.2f} s",
        ", ".join(phases),
    ]


def queue_row(queue: common_pb2.Queue) -> list[str]:
    """A queue as a row of ``QUEUE_COLUMNS``."""
    return [
        queue.name,
        str(queue.held_accelerators),
        str(queue.quota_accelerators) if queue.HasField("quota_accelerators") else "none",
        _borrowing(queue),
        str(queue.jobs_running),
        str(queue.jobs_waiting),
        ",".join(queue.submitters) or "everyone",
        ",".join(queue.namespaces) or "all",
    ]


def _borrowing(queue: common_pb2.Queue) -> str:
    """What the queue may hold beyond its quota, if it has one."""
    if not queue.HasField("quota_accelerators"):
        return ""
    return "any" if queue.borrowing_accelerators < 0 else str(queue.borrowing_accelerators)


def event_row(event: jobs_pb2.LoggedEvent, now: float) -> list[str]:
    """An event as a row of ``EVENT_COLUMNS``."""
    return [
        str(event.sequence),
        age(now - moment(event.at)),
        event.kind,
        called(event.uid, event.job_name) or event.node,
        event.message or reason(event.reason),
    ]


def called(uid: str, name: str) -> str:
    """A job's name; where nobody knows it any more, as much of its uid as tells it from others."""
    if name not in ("", uid):
        return name
    return uid if len(uid) <= _UID_SHOWN else uid[:_UID_SHOWN] + ELLIPSIS


@dataclass(frozen=True, slots=True)
class Decided:
    """One thing that a cycle decided: about which job, what was ordered if anything, and why."""

    uid: str
    action: str
    why: str
    at: float


_VERBS = {
    "StartAttempt": "start",
    "StopAttempt": "checkpoint and stop",
    "ChangePlan": "change the plan of",
    "EndAttempt": "end",
    "FailJob": "give up",
    "ForgetJob": "forget",
}


def decisions(event: jobs_pb2.LoggedEvent) -> list[Decided]:
    """What one event of the log decided; nothing for an event that is no decision."""
    if event.kind != "CycleDecided" or not event.body_json:
        return []
    body: dict[str, Any] = json.loads(event.body_json)
    at = moment(event.at)
    ordered = [
        Decided(each["uid"], _ordered(each), _why(each.get("reason") or {}), at)
        for each in body.get("actions", ())
    ]
    return ordered + [Decided(uid, "", _why(why), at) for uid, why in body.get("reasons", ())]


def _ordered(action: Mapping[str, Any]) -> str:
    verb = _VERBS.get(action["kind"], action["kind"])
    attempt = f" attempt {action['attempt']}" if "attempt" in action else ""
    return f"{verb}{attempt}"


def _why(told: Mapping[str, Any]) -> str:
    return ": ".join(filter(None, (told.get("code", ""), told.get("message", ""))))


def job_document(job: jobs_pb2.Job) -> dict[str, Any]:
    """The job as the object that ``kubectl get -o yaml`` would show: manifest and status."""
    document: dict[str, Any] = json.loads(job.manifest_json)
    document["metadata"] |= {"uid": job.uid, "generation": job.generation}
    created = iso(job.submitted_at)
    if created:
        document["metadata"]["creationTimestamp"] = created
    document["status"] = status_document(job.status)
    return {
        key: document[key]
        for key in ("apiVersion", "kind", "metadata", "spec", "status")
        if key in document
    }


def plain(message: Any) -> dict[str, Any]:
    """Any message as a document; numbers stay numbers where JSON can hold them."""
    document: dict[str, Any] = MessageToDict(message, always_print_fields_with_no_presence=True)
    return document


def listed(documents: Sequence[Mapping[str, Any]], kind: str = "") -> dict[str, Any]:
    """Several documents as one list object; of no kind in particular if none is given."""
    return {"apiVersion": "headrace.dev/v1alpha1", "kind": f"{kind}List", "items": list(documents)}
