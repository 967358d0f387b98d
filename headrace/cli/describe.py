"""``headrace describe``: everything about one job, node or queue, for people or as a document."""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from headrace.api.counted import counted
from headrace.api.generated import admin_pb2, common_pb2, jobs_pb2
from headrace.api.status_document import iso
from headrace.cli import estimates, views
from headrace.cli.events import as_document, latest
from headrace.cli.explain import sentences
from headrace.cli.get import DESCRIBED, find_job, kind_of, not_there
from headrace.cli.long_messages import LongMessages, brief
from headrace.cli.output import Format, document, field, folded, say, table, width
from headrace.cli.plan_words import explained
from headrace.cli.session import Session
from headrace.cli.tables import STAGE_COLOURS, Column, age
from headrace.client.client import Client

_EVENTS_SHOWN = 12
_ATTEMPTS_OF_RESTORED = 10**9
"""After a restore, attempts go on from the clock's seconds; nothing else brings them so far."""
_CONDITION_COLUMNS = (
    Column("CONDITION"),
    Column("STATUS", colours={"True": "32", "Unknown": "33"}),
    Column("AGE", right=True),
    Column("REASON", gives_way=1, wraps=True),
    Column("MESSAGE", gives_way=2, wraps=True),
)
_UNIT_COLUMNS = (
    Column("UNIT", right=True),
    Column("NODE", gives_way=1),
    Column("RANKS", right=True),
    Column("CORES", gives_way=2, wraps=True),
    Column("ACCELERATORS", gives_way=3, wraps=True),
)
_SLOT_COLUMNS = (
    Column("ACCELERATOR", gives_way=1),
    Column("TYPE", gives_way=2),
    Column("ISLAND"),
    Column("HEALTH", gives_way=3, colours={"healthy": STAGE_COLOURS["Online"]}, wraps=True),
    Column("HELD BY", gives_way=4, wraps=True),
)
_EVENT_COLUMNS = (
    Column("SEQ", right=True),
    Column("AGE", right=True),
    Column("KIND"),
    Column("MESSAGE", gives_way=1, wraps=True),
)


def describe(session: Session, kind: str, name: str, namespace: str, output: Format) -> None:
    """Prints everything about one object."""
    with session.client() as client:
        match kind_of(kind, DESCRIBED):
            case "job":
                job = find_job(client, name, namespace)
                whole = partial(_job_document, client, job)
                _print(output, f"job/{job.name}", whole, partial(_describe_job, client, job))
            case "node":
                node = _node(client, name)
                whole = partial(_node_document, node)
                _print(output, f"node/{name}", whole, partial(_describe_node, client, node))
            case "fit":
                from headrace.cli.fits import describe_fits

                describe_fits(client, name, output)
            case _:
                queue = _queue(client, name)
                whole = partial(_queue_document, client, queue)
                _print(output, f"queue/{name}", whole, partial(_describe_queue, client, queue))


def _print(
    output: Format,
    name: str,
    whole: Callable[[], dict[str, Any]],
    show: Callable[[bool], None],
) -> None:
    """The object in a format; ``show`` prints it for people, in wide tables if it is told so."""
    match output:
        case Format.JSON | Format.YAML:
            document(whole(), output)
        case Format.NAME:
            say(name)
        case _:
            show(output is Format.WIDE)


def _job_document(client: Client, job: jobs_pb2.Job) -> dict[str, Any]:
    return {
        "job": views.job_document(job),
        "explanation": views.plain(client.explain(job.uid)),
        "events": [as_document(event) for event in latest(client, job.uid, _EVENTS_SHOWN)],
    }


def _node_document(node: admin_pb2.NodeStatus) -> dict[str, Any]:
    return {"node": views.plain(node)}


def _queue_document(client: Client, queue: common_pb2.Queue) -> dict[str, Any]:
    jobs = client.list_jobs(jobs_pb2.JobSelector(queue=queue.name))
    return {"queue": views.plain(queue), "jobs": [views.job_document(job) for job in jobs]}


def _describe_job(client: Client, job: jobs_pb2.Job, wide: bool) -> None:
    status, now = job.status, time.time()
    manifest: dict[str, Any] = json.loads(job.manifest_json)
    for label, value in (
        ("Name", f"{job.namespace}/{job.name}"),
        ("Uid", job.uid),
        ("Generation", f"{job.generation} (observed {status.observed_generation})"),
        ("Owner", job.owner),
        ("Submitted", f"{iso(job.submitted_at)} by {job.submitter or 'unknown'}"),
        ("Queue", f"{job.queue}, priority {job.priority}"),
    ):
        field(label, value)
    for label, value in wanted(manifest["spec"]):
        field(label, value)
    if manifest["spec"].get("plans"):
        folded("Plans", ", ".join(manifest["spec"]["plans"]))
    say()
    field("Stage", views.state(job))
    folded("Plan", explained(status.plan) if status.plan else "-")
    if status.plan_asked_for:
        folded("Asked for", explained(status.plan_asked_for))
    _describe_what_failed_before(job, now)
    field("Progress", f"{views.progress(job)}, loss {views.loss(job)}")
    field("Checkpoint", f"step {status.progress.checkpoint_step}")
    if status.HasField("start"):
        folded("Starts", estimates.told(status.start, now, "starts"))
    folded("Ends", estimates.ends(job, now))
    jumped = " (counted on from a restore)" if status.attempt >= _ATTEMPTS_OF_RESTORED else ""
    field("Attempt", f"{status.attempt}{jumped}, {status.failures} failures")
    field("Reconfigurations", status.reconfigurations)
    field("Held", f"{status.held_accelerator_seconds:.0f} accelerator-seconds")
    dashboard = client.cluster().dashboard_url
    if dashboard:
        field("Ray dashboard", f"{dashboard}/#/actors")
    explained_why = client.explain(job.uid)
    for line in sentences(job, explained_why)[1:]:
        say(line)
    if status.conditions:
        say()
        _describe_conditions(job, LongMessages(explained_why.reason.message), now, wide)
    if status.units:
        say()
        table(_UNIT_COLUMNS, [_unit_row(unit) for unit in status.units], wide=wide)
    if status.switches:
        say()
        rows = [views.switch_row(switch, now) for switch in reversed(status.switches)]
        table(views.SWITCH_COLUMNS, rows, wide=wide)
    found = latest(client, job.uid, _EVENTS_SHOWN)
    if found:
        say()
        table(_EVENT_COLUMNS, [_event_row(event, now) for event in found], wide=wide)


def _describe_conditions(job: jobs_pb2.Job, told: LongMessages, now: float, wide: bool) -> None:
    # What holds comes first to its words, so that others refer to it.
    claims = sorted(job.status.conditions, key=lambda each: each.status != "True")
    says = {each.type: told.cell(each.type, each.message) for each in claims}
    table(
        _CONDITION_COLUMNS,
        [
            [
                each.type,
                each.status,
                age(now - views.moment(each.last_transition_time)),
                each.reason,
                says[each.type],
            ]
            for each in job.status.conditions
        ],
        wide=wide,
    )
    for line in told.below(width()):
        say(line)


def _describe_what_failed_before(job: jobs_pb2.Job, now: float) -> None:
    if job.status.out_of_memory:
        folded("Out of memory", f"{views.out_of_memory(job)}: not tried there again")
    if job.status.suspected_nodes:
        folded("Keeps off", f"{views.suspected(job, now)}, while there is room elsewhere")


def _event_row(event: jobs_pb2.LoggedEvent, now: float) -> list[str]:
    """An event of the job that is described, whose name needs no column."""
    sequence, passed, kind, _, message = views.event_row(event, now)
    return [sequence, passed, kind, brief(message)]


def _unit_row(unit: Any) -> list[str]:
    ranks = max(1, len(unit.accelerators))
    last = unit.first_rank + ranks - 1
    return [
        str(unit.index),
        unit.node,
        str(unit.first_rank) if ranks == 1 else f"{unit.first_rank}-{last}",
        ", ".join(map(str, unit.cpu_cores)),
        ", ".join(unit.accelerators),
    ]


def wanted(spec: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a job asks for, as labels and texts; of the environment only names are told."""
    asked = spec["accelerators"]
    most = asked.get("maximum", asked["minimum"])
    several = str(most) if most == asked["minimum"] else f"{asked['minimum']} to {most}"
    kind = f" {asked['type']}" if asked.get("type") else ""
    yield "Accelerators", f"{several}{kind}, {spec['serviceClass']}, topology {asked['topology']}"
    if "model" in spec:
        model = spec["model"]
        sizes = model.get("preset") or f"with the weights in {model['weights']}"
        yield "Model", f"{model['name']} {sizes} on {spec['data']['source']}"
    if "script" in spec:
        yield "Script", " ".join([spec["script"]["file"], *spec["script"]["arguments"]])
    if "training" in spec:
        training = spec["training"]
        yield (
            "Training",
            (
                f"{counted(training['steps'], 'step')} of "
                f"{counted(training['globalBatchSize'], 'sample')}, "
                f"{training['precision']}, learning rate {training['learningRate']:g}"
            ),
        )
    if "command" in spec:
        yield "Command", " ".join(spec["command"]["program"])
    if "checkpoint" in spec:
        kept = spec["checkpoint"]
        yield (
            "Store",
            f"{kept['store']}, every {counted(kept['everySteps'], 'step')}, {kept['keep']} kept",
        )
    if spec.get("env"):
        yield "Environment", ", ".join(_variable(each) for each in spec["env"])
    retries = spec["retries"]
    yield "Retries", f"{retries['max']}, after {retries['backoffSeconds']} s and more"


def _variable(variable: dict[str, Any]) -> str:
    reference = variable.get("valueFrom", {}).get("secretKeyRef")
    if reference:
        return f"{variable['name']} (secret {reference['name']}/{reference['key']})"
    return str(variable["name"])


def _node(client: Client, name: str) -> admin_pb2.NodeStatus:
    found = {each.node.name: each for each in client.nodes()}
    if name not in found:
        raise not_there("node", [name], f"there are {', '.join(sorted(found)) or 'none'}")
    return found[name]


def _describe_node(client: Client, status: admin_pb2.NodeStatus, wide: bool) -> None:
    node, now = status.node, time.time()
    names = {job.uid: f"{job.namespace}/{job.name}" for job in client.list_jobs()}
    for label, value in (
        ("Name", node.name),
        ("Contact", f"{status.contact} since {age(now - views.moment(status.last_change_at))}"),
        ("Drained", "yes" if status.drained else "no"),
        ("Kubernetes", f"{status.closed}: {status.closed_reason}" if status.closed else "-"),
        ("Address", node.address),
        ("Agent", node.agent_version),
        ("Rack", views.rack(node)),
        ("Labels", ", ".join(f"{key}={text}" for key, text in sorted(node.labels.items())) or "-"),
        ("Taints", ", ".join(f"{each.key}={each.value}" for each in node.taints) or "-"),
    ):
        field(label, value)
    say()
    rows = [_slot_row(slot, status, names) for slot in node.accelerators]
    table(_SLOT_COLUMNS, rows, wide=wide)
    for stray in status.strays:
        say(
            f"stray: unit {stray.unit} of attempt {stray.attempt} of {stray.uid}, which no job "
            f"accounts for; `headrace delete --orphan {stray.uid}` ends it"
        )


def _slot_row(slot: Any, status: admin_pb2.NodeStatus, names: dict[str, str]) -> list[str]:
    holder = status.holders.get(slot.id, "")
    health, held = slot.unhealthy or "healthy", names.get(holder, holder) or "free"
    return [slot.id, slot.type, slot.island or "-", health, held]


def _queue(client: Client, name: str) -> common_pb2.Queue:
    found = {each.name: each for each in client.queues()}
    if name not in found:
        raise not_there("queue", [name], f"there are {', '.join(sorted(found)) or 'none'}")
    return found[name]


def _describe_queue(client: Client, queue: common_pb2.Queue, wide: bool) -> None:
    for column, value in zip(views.QUEUE_COLUMNS, views.queue_row(queue), strict=True):
        field(column.title.capitalize(), value)
    jobs = client.list_jobs(jobs_pb2.JobSelector(queue=queue.name))
    if jobs:
        say()
        now = time.time()
        table(
            views.JOB_COLUMNS,
            [views.job_row(job, now, named=f"{job.namespace}/{job.name}") for job in jobs],
            wide=wide,
        )
