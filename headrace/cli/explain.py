"""``headrace explain``: why a job stands where it stands."""

import time
from typing import Any

from headrace.api.generated import admin_pb2, jobs_pb2
from headrace.cli import views
from headrace.cli.get import find_job
from headrace.cli.output import Format, document, say, table
from headrace.cli.session import Session
from headrace.cli.tables import Column, age

_DECISION_COLUMNS = (
    Column("SEQ", right=True),
    Column("AGE", right=True),
    Column("ORDERED", gives_way=1),
    Column("BECAUSE", gives_way=2),
)


def explain(session: Session, name: str, namespace: str, output: Format) -> None:
    """Prints a job's reason, what it lacks, who holds that, and its last decisions."""
    with session.client() as client:
        job = find_job(client, name, namespace)
        told = client.explain(job.uid)
    if output in (Format.JSON, Format.YAML):
        document(_document(job, told), output)
        return
    for line in sentences(job, told):
        say(line)
    if told.decisions:
        say()
        say("Last decisions")
        now = time.time()
        rows = [
            [
                str(each.sequence),
                age(now - views.moment(each.at)),
                each.action,
                views.reason(each.reason),
            ]
            for each in told.decisions
        ]
        table(_DECISION_COLUMNS, rows, wide=output is Format.WIDE)


def sentences(job: jobs_pb2.Job, told: admin_pb2.ExplainResponse) -> list[str]:
    """The explanation as lines for people."""
    lines = [f"{job.namespace}/{job.name} is {told.stage or job.status.stage}"]
    if job.status.plan:
        nodes = ", ".join(sorted({unit.node for unit in job.status.units}))
        lines[0] += f" under plan {job.status.plan} on {nodes}"
    if told.reason.code:
        lines.append(f"  {views.reason(told.reason)}")
    missing = told.reason.wanted - told.reason.available
    if missing > 0:
        lines.append(
            f"  wanted {told.reason.wanted} accelerators, there are {told.reason.available} for "
            f"it: {missing} short"
        )
    lines += [
        f"  {holder.namespace}/{holder.name} holds {holder.accelerators} ({holder.uid})"
        for holder in told.holders
    ]
    if told.position:
        lines.append(f"  place {told.position} among the waiting jobs of queue {job.queue}")
    return lines


def _document(job: jobs_pb2.Job, told: admin_pb2.ExplainResponse) -> dict[str, Any]:
    return {"job": f"{job.namespace}/{job.name}", "uid": job.uid} | views.plain(told)
