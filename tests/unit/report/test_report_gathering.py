"""Over a real channel: everything is asked for, page by page, and comes out as it went in."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.generated import (
    admin_pb2,
    admin_pb2_grpc,
    common_pb2,
    jobs_pb2,
    jobs_pb2_grpc,
    nodes_pb2,
)
from headrace.cli.exit_codes import CommandError
from headrace.cli.report import gathered, write_report
from headrace.cli.report_facts import ReportFacts
from headrace.client.client import Client
from headrace.client.context import Context
from tests.unit.report.logbook import Logbook, the_bad_day, the_demo

PAGE = 37


def stamp(nanoseconds: int) -> Timestamp:
    return Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


class Jobs(jobs_pb2_grpc.JobServiceServicer):
    """Serves written facts in small pages."""

    def __init__(self, facts: ReportFacts) -> None:
        self.facts = facts

    def ListJobs(self, request: Any, context: Any) -> jobs_pb2.ListJobsResponse:  # noqa: N802
        jobs = [
            jobs_pb2.Job(
                uid=job.uid,
                namespace=job.namespace,
                name=job.name,
                status=jobs_pb2.JobStatus(
                    stage=job.stage,
                    plan=job.plan,
                    progress=common_pb2.Progress(step=job.step, steps_total=job.steps_total),
                    finished_at=stamp(job.finished_ns) if job.finished_ns else None,
                ),
            )
            for job in self.facts.jobs
        ]
        return jobs_pb2.ListJobsResponse(jobs=jobs)

    def ListEvents(self, request: Any, context: Any) -> jobs_pb2.ListEventsResponse:  # noqa: N802
        left = [one for one in self.facts.events if one.sequence > request.after_sequence]
        events = [
            jobs_pb2.LoggedEvent(sequence=one.sequence, body_json=json.dumps(one.body))
            for one in left[:PAGE]
        ]
        following = events[-1].sequence if len(left) > PAGE else 0
        return jobs_pb2.ListEventsResponse(events=events, next_after_sequence=following)

    def GetLosses(self, request: Any, context: Any) -> jobs_pb2.GetLossesResponse:  # noqa: N802
        if request.uid not in self.facts.losses:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such job")
        points = [one for one in self.facts.losses[request.uid] if one.step > request.after_step]
        return jobs_pb2.GetLossesResponse(
            points=[
                jobs_pb2.LossPoint(
                    step=one.step, loss=one.loss, attempt=one.attempt, at=stamp(one.at_ns)
                )
                for one in points[:PAGE]
            ]
        )


class Admin(admin_pb2_grpc.AdminServiceServicer):
    """Serves the cluster of written facts."""

    def __init__(self, facts: ReportFacts) -> None:
        self.facts = facts

    def ListNodes(self, request: Any, context: Any) -> admin_pb2.ListNodesResponse:  # noqa: N802
        return admin_pb2.ListNodesResponse(
            nodes=[
                admin_pb2.NodeStatus(
                    node=nodes_pb2.Node(
                        name=node.name,
                        accelerators=[
                            nodes_pb2.Accelerator(id=slot.id, type=slot.type)
                            for slot in node.accelerators
                        ],
                    ),
                    contact=node.contact,
                )
                for node in self.facts.nodes
            ]
        )

    def GetCluster(self, request: Any, context: Any) -> admin_pb2.GetClusterResponse:  # noqa: N802
        cluster = self.facts.cluster
        return admin_pb2.GetClusterResponse(
            version=cluster.version,
            policy=cluster.policy,
            term=cluster.term,
            state=cluster.state,
            now=stamp(cluster.now_ns),
        )


def without_repeated_steps(book: Logbook, now: float) -> ReportFacts:
    """As the store keeps losses: a step done again overwrites."""
    for uid, points in book.losses.items():
        kept = {point.step: point for point in points}
        book.losses[uid] = [kept[step] for step in sorted(kept)]
    return book.facts(now)


@pytest.fixture(params=["demo", "bad day", "nothing"])
def facts(request: pytest.FixtureRequest) -> ReportFacts:
    match request.param:
        case "demo":
            return the_demo().facts(122)
        case "bad day":
            return without_repeated_steps(the_bad_day(), 140)
        case _:
            return Logbook(nodes=()).facts(1)


@pytest.fixture
def client(facts: ReportFacts) -> Iterator[Client]:
    server = grpc.server(ThreadPoolExecutor(2))
    jobs_pb2_grpc.add_JobServiceServicer_to_server(Jobs(facts), server)  # type: ignore[no-untyped-call]
    admin_pb2_grpc.add_AdminServiceServicer_to_server(Admin(facts), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(Context(f"127.0.0.1:{port}", local=True)) as client:
        yield client
    server.stop(None).wait()


def test_everything_comes_out_as_it_went_in(client: Client, facts: ReportFacts) -> None:
    assert gathered(client) == facts


def test_the_file_is_replaced_whole(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "reports" / "page.html"
    write_report(client, path)
    first = path.read_bytes()
    write_report(client, path)
    assert path.read_bytes() == first
    assert first.endswith(b"</html>\n")
    assert [found.name for found in path.parent.iterdir()] == ["page.html"]


def test_a_file_that_cannot_be_written_is_named_as_it_was_given(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    for path, why in (
        (tmp_path / "folder", "Is a directory"),
        (Path("/proc/page.html"), "No such file or directory"),
    ):
        with pytest.raises(CommandError, match=f"the report {path} cannot be written: {why}"):
            write_report(client, path)
    assert [found.name for found in tmp_path.iterdir()] == ["folder"]
