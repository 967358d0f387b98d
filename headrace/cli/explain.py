"""``headrace explain``: why a job stands where it stands."""

import textwrap
import time
from typing import Any

from headrace.api.generated import admin_pb2, jobs_pb2
from headrace.cli import views
from headrace.cli.get import find_job
from headrace.cli.output import Format, document, say, table, width
from headrace.cli.session import Session
from headrace.cli.tables import Column, age

_DECISION_COLUMNS = (
    Column("SEQ", right=True),
    Column("AGE", right=True),
    Column("ORDERED", gives_way=1, wraps=True),
    Column("BECAUSE", gives_way=2, wraps=True),
)

_LACKS = frozenset(
    {
        "WaitingForAccelerators",
        "BehindEarlierJob",
        "QuotaExceeded",
        "NoMatchingAccelerator",
        "ExceedsCluster",
        "WaitingForRelease",
    }
)
"""Reasons whose numbers say what is missing; others tell what a job has and is to have."""


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


def sentences(
    job: jobs_pb2.Job, told: admin_pb2.ExplainResponse, *, columns: int | None = None
) -> list[str]:
    """The explanation as lines for people, no wider than that; None for the terminal's width."""
    columns = columns or width()
    reason = told.reason
    lines = [f"{job.namespace}/{job.name} is {told.stage or job.status.stage}"]
    if job.status.plan:
        nodes = ", ".join(sorted({unit.node for unit in job.status.units}))
        lines[0] += f" under plan {job.status.plan} on {nodes}"
    if reason.code:
        lines += f"  {views.reason(reason)}".split("\n")
    missing = reason.wanted - reason.available if reason.code in _LACKS else 0
    if missing > 0:
        kind = "accelerator" if reason.wanted == 1 else "accelerators"
        kind = f"{reason.type} {kind}" if reason.type else kind
        lines.append(
            f"  wanted {reason.wanted} {kind}, there are {reason.available} for it: {missing} short"
        )
    lines += [
        f"  {holder.namespace}/{holder.name} holds {holder.accelerators} ({holder.uid})"
        for holder in told.holders
    ]
    if reason.more_holders:
        more = "job holds" if reason.more_holders == 1 else "jobs hold"
        lines.append(f"  and {reason.more_holders} more {more} some")
    lines += [
        f"  {each.plan} is not tried on {each.type}: {each.message}" for each in told.does_not_fit
    ]
    if told.more_that_do_not_fit:
        lines.append(f"  and {told.more_that_do_not_fit} more do not fit")
    lines += [f"  {sentence}" for sentence in told.because]
    if told.position:
        lines.append(f"  place {told.position} among the waiting jobs of queue {job.queue}")
    if told.HasField("retry_at"):
        left = max(0.0, views.moment(told.retry_at) - time.time())
        lines.append(f"  is tried again in {age(left)} at the earliest")
    return [part for line in lines for part in _folded(line, columns)]


def _folded(line: str, columns: int) -> list[str]:
    """The line in pieces that fit, broken between words only."""
    return textwrap.wrap(
        line,
        columns,
        subsequent_indent="    ",
        expand_tabs=False,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [line]


def _document(job: jobs_pb2.Job, told: admin_pb2.ExplainResponse) -> dict[str, Any]:
    return {"job": f"{job.namespace}/{job.name}", "uid": job.uid} | views.plain(told)
