"""Asks the control plane for all that the report shows, and writes the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.report_facts import (
    AcceleratorFact,
    ClusterFact,
    EventFact,
    JobFact,
    LossFact,
    NodeFact,
    ReportFacts,
)

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from headrace.api.generated import admin_pb2, jobs_pb2
    from headrace.client.client import Client


def write_report(client: Client, path: Path) -> ReportFacts:
    """Writes the report of a cluster's whole kept history to one HTML file.

    Args:
        client: Where to ask.
        path: The file; it is replaced in one step, so a reader never sees half of it.

    Returns:
        What the report was made from.

    Raises:
        CommandError: The file cannot be written.
    """
    from headrace.cli.report_page import page

    facts = gathered(client)
    scratch = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            scratch.write_text(page(facts), encoding="utf-8")
            scratch.replace(path)
        except OSError:
            scratch.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CommandError(
            ExitCode.FAILED, f"the report {path} cannot be written: {error.strerror}"
        ) from error
    return facts


def gathered(client: Client) -> ReportFacts:
    """All that a report is made from, asked of the control plane.

    Events are asked for first: what the later answers know more is then only missing from the
    story, not contradicted by it.
    """
    events = tuple(
        EventFact(logged.sequence, json.loads(logged.body_json))
        for logged in client.list_events()
        if logged.body_json
    )
    jobs = client.list_jobs()
    uids = dict.fromkeys([job.uid for job in jobs] + [_submitted_uid(event) for event in events])
    losses = {uid: _losses(client, uid) for uid in uids if uid}
    return ReportFacts(
        events=events,
        jobs=tuple(_job(job) for job in jobs),
        nodes=tuple(_node(status) for status in client.nodes()),
        losses={uid: points for uid, points in losses.items() if points},
        cluster=_cluster(client.cluster()),
    )


def _submitted_uid(event: EventFact) -> str:
    """The uid of a job that was submitted; it may be forgotten by now."""
    if event.body.get("kind") != "JobSubmitted":
        return ""
    return str(event.body["job"]["uid"])


def _losses(client: Client, uid: str) -> tuple[LossFact, ...]:
    from headrace.client.trouble import CallError, Kind

    found: list[LossFact] = []
    after = 0
    while True:
        try:
            points = client.losses(uid, after)
        except CallError as trouble:
            # The losses of a forgotten job may be gone with it.
            if trouble.kind is Kind.NOT_FOUND:
                return tuple(found)
            raise
        if not points:
            return tuple(found)
        found.extend(
            LossFact(point.step, point.loss, point.attempt, _nanoseconds(point.at))
            for point in points
        )
        after = max(point.step for point in points)


def _nanoseconds(stamp: Timestamp) -> int:
    return stamp.seconds * 1_000_000_000 + stamp.nanos


def _job(job: jobs_pb2.Job) -> JobFact:
    status = job.status
    return JobFact(
        uid=job.uid,
        namespace=job.namespace,
        name=job.name,
        stage=status.stage,
        plan=status.plan,
        step=status.progress.step,
        steps_total=status.progress.steps_total,
        held_accelerator_seconds=status.held_accelerator_seconds,
        reason=status.reason.message or status.reason.code,
        finished_ns=_nanoseconds(status.finished_at) or None,
    )


def _node(status: admin_pb2.NodeStatus) -> NodeFact:
    node = status.node
    return NodeFact(
        name=node.name,
        accelerators=tuple(
            AcceleratorFact(slot.id, slot.type, slot.unhealthy) for slot in node.accelerators
        ),
        contact=status.contact,
        drained=status.drained,
        address=node.address,
    )


def _cluster(answer: admin_pb2.GetClusterResponse) -> ClusterFact:
    return ClusterFact(
        version=answer.version,
        policy=answer.policy,
        term=answer.term,
        state=answer.state,
        now_ns=_nanoseconds(answer.now),
    )
