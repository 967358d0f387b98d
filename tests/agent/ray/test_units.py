"""Launch units in a real Ray: from an assignment to a rank's process and back."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from headrace.api.generated import nodes_pb2
from tests.agent.ray.cluster import (
    END,
    STOP,
    AgentProcess,
    ListeningControlPlane,
    LocalRay,
    a_launch,
    gone,
    outer_address,
    until,
)

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

A, B = "node-a-slot-0", "node-a-slot-1"


@dataclass
class Node:
    """A node whose agent goes on from test to test, each of which has jobs of its own.

    Attributes:
        agent: Its agent.
        control_plane: Whom it obeys.
        ready: What it said when it was ready.
        secrets: Folder of the secrets that it knows.
    """

    agent: AgentProcess
    control_plane: ListeningControlPlane
    ready: dict[str, Any]
    secrets: Path
    _number: int = 0
    _listed: dict[tuple[str, int, int], nodes_pb2.Launch] = field(default_factory=dict)

    def assign(self, *launches: nodes_pb2.Launch) -> int:
        """Has it run these launches of one unit each; returns the assignment's number."""
        self._number += 1
        self._listed |= {(one.uid, one.attempt, one.units[0].index): one for one in launches}
        self.control_plane.assign("node-a", self._number, *launches)
        return self._number

    def clear(self) -> None:
        """Ends all that a test had it run."""
        for launch in self._listed.values():
            launch.intent = END
        self.assign(*self._listed.values())
        until("all has ended", lambda: self._listed.keys() <= self._ended())
        self._listed.clear()
        self.assign()

    def _ended(self) -> set[tuple[str, int, int]]:
        reports = list(self.control_plane.reports)
        return {(e.uid, e.attempt, e.unit) for told in reports for e in told.exited}


@pytest.fixture(scope="module")
def _node(_ray: LocalRay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    _ray.start()
    folder = tmp_path_factory.mktemp("node")
    secrets = folder / "secrets"
    secrets.mkdir()
    control_plane = ListeningControlPlane()
    control_plane.start()
    agent = AgentProcess("node-a", folder, _ray, control_plane)
    try:
        ready = agent.start(HEADRACE_SECRETS_DIR=str(secrets))
        until("it has joined Ray, by a process of its own", agent.ray_driver)
        yield Node(agent, control_plane, ready, secrets)
    finally:
        agent.end_units()
        control_plane.stop()


@pytest.fixture
def node(_node: Node) -> Iterator[Node]:
    """The node with nothing to run."""
    yield _node
    _node.clear()


def test_a_unit_runs_reports_and_stops_as_planned(node: Node) -> None:
    assert node.ready["accelerators"] == [A, B]
    registered = until("it registers", lambda: list(node.control_plane.registrations))[0]
    assert [a.type for a in registered.node.accelerators] == ["cpu", "cpu"]

    node.assign(a_launch("runs", slots=(A,)))
    until("the start is reported", lambda: node.control_plane.starts("runs"))
    until("the address is reported", lambda: node.control_plane.rendezvous("runs"))
    until("losses are reported", lambda: len(node.control_plane.losses("runs")) > 20)

    node.assign(a_launch("runs", slots=(A,), intent=STOP))
    ended = until("the end is reported", lambda: node.control_plane.exits("runs"))[0]
    assert ended.outcome == "Stopped"
    losses = node.control_plane.losses("runs")
    assert sorted(losses) == list(range(1, ended.step + 1))
    assert losses[4] == pytest.approx(0.25)
    assert node.agent.times_started("runs") == 1
    until("its actor is gone", lambda: gone(node.agent.supervisor("runs")))


def test_ray_refuses_who_does_not_show_the_token(ray: LocalRay) -> None:
    token = Path(ray.authentication["RAY_AUTH_TOKEN_PATH"])
    assert token.stat().st_mode & 0o777 == 0o600
    with grpc.insecure_channel(f"{outer_address()}:{ray.port}") as channel:
        stored_keys = channel.unary_unary(
            "/ray.rpc.InternalKVGcsService/InternalKVKeys", bytes, bytes
        )
        for shown in ((), (("authorization", "Bearer 0123456789abcdef"),)):
            with pytest.raises(grpc.RpcError) as refused:
                stored_keys(b"", metadata=shown, timeout=30)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        header = ("authorization", f"Bearer {token.read_text()}")
        assert stored_keys(b"", metadata=(header,), timeout=30)


def test_the_rank_sees_what_it_should_and_nothing_else(node: Node) -> None:
    secret = node.secrets / "hub" / "token"
    secret.parent.mkdir()
    secret.write_text("hunter2\n")
    env: list[dict[str, Any]] = [
        {"name": "COLOUR", "value": "green"},
        {"name": "HUB", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
    ]
    core = min(os.sched_getaffinity(0))
    node.assign(
        a_launch("sees", "show-environment", slots=(A,), steps=1, env=env, cpu_cores=(core,)),
    )
    ended = until("the end is reported", lambda: node.control_plane.exits("sees"))[0]
    assert (ended.outcome, ended.step) == ("Succeeded", 1)
    seen = json.loads((node.agent.folder("sees") / "environment.json").read_text())
    environment = seen["environment"]
    assert environment["COLOUR"] == "green"
    assert environment["HUB"] == "hunter2"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["OMP_NUM_THREADS"] == "1"
    assert not [name for name in environment if name.startswith("RAY_")]
    assert [name for name in environment if name.startswith("HEADRACE_")] in (
        ["HEADRACE_CONTROL_DIR"],
        ["HEADRACE_TEST", "HEADRACE_CONTROL_DIR"],
    )
    assert seen["affinity"] == [core]
    assert seen["session"] is True
    # The value went nowhere but into the rank.
    written = [p for p in node.agent.state.rglob("*") if p.is_file() and p != secret]
    assert [p.name for p in written if b"hunter2" in p.read_bytes()] == ["environment.json"]


def test_a_missing_secret_is_refused_by_name(node: Node) -> None:
    env = [{"name": "BUCKET", "valueFrom": {"secretKeyRef": {"name": "bucket", "key": "token"}}}]
    node.assign(a_launch("lacks-a-secret", slots=(A,), env=env))
    ended = until("the end is reported", lambda: node.control_plane.exits("lacks-a-secret"))[0]
    assert (ended.outcome, ended.reason.code) == ("Failed", "StartRefused")
    assert "secret bucket/token" in ended.reason.message
    assert node.agent.times_started("lacks-a-secret") == 0


def test_other_units_wait_for_the_address(node: Node) -> None:
    first = a_launch("waits", slots=(A,), units_total=2)
    second = a_launch("waits", slots=(B,), unit=1, units_total=2)
    number = node.assign(first, second)
    address = until("the address is reported", lambda: node.control_plane.rendezvous("waits"))
    until(
        "the first assignment was applied",
        lambda: node.control_plane.reports[-1].applied_number == number,
    )
    assert not node.agent.folder("waits", unit=1).exists()
    second.rendezvous = first.rendezvous = address
    node.assign(first, second)
    until(
        "both were started", lambda: {s.unit for s in node.control_plane.starts("waits")} == {0, 1}
    )


def test_a_rank_that_fails_is_reported_with_its_last_lines(node: Node) -> None:
    node.assign(a_launch("fails", "fail", slots=(A,)))
    ended = until("the end is reported", lambda: node.control_plane.exits("fails"))[0]
    assert (ended.outcome, ended.reason.code) == ("Failed", "RankFailed")
    assert "exited with code 3" in ended.reason.message
    assert "Traceback: the tiny child gives up" in ended.reason.message

    # A unit that was started is never started again, even if it stays listed.
    def told_again() -> bool:
        # An assignment that comes before the first report's answer has nothing new to hear.
        node.assign(a_launch("fails", "fail", slots=(A,)))
        return len(node.control_plane.exits("fails")) > 1

    until("the end is told again", told_again)
    assert node.agent.times_started("fails") == 1


def test_end_means_now_even_for_the_stubborn_and_their_children(node: Node) -> None:
    wishes = ("ignore-sigterm", "grandchild")
    node.assign(a_launch("stubborn", *wishes, slots=(A,)))
    until("it trains", lambda: node.control_plane.losses("stubborn"))
    grandchild = psutil.Process(int((node.agent.folder("stubborn") / "grandchild").read_text()))
    rank = node.agent.rank("stubborn")
    node.assign(a_launch("stubborn", *wishes, slots=(A,), intent=END))
    ended = until("the end is reported", lambda: node.control_plane.exits("stubborn"))[0]
    assert ended.outcome == "Failed"
    assert not ended.reason.code
    # Reported means released: nothing may be alive by then.
    assert gone(rank)
    assert gone(grandchild)


def test_a_unit_that_was_never_started_is_answered(node: Node) -> None:
    node.assign(a_launch("never", slots=(A,), intent=END))
    ended = until("the end is reported", lambda: node.control_plane.exits("never"))[0]
    assert ended.outcome == "NeverStarted"


def test_output_can_be_followed_and_read_afterwards(node: Node) -> None:
    node.assign(a_launch("speaks", slots=(A,)))
    until("it trains", lambda: node.control_plane.losses("speaks"))
    node.control_plane.ask_logs(
        nodes_pb2.ServeLogsResponse(request_id="1", uid="speaks", tail_lines=-1, follow=True)
    )
    until("output comes", lambda: "attempt 1 unit 0" in node.control_plane.output("1"))
    node.assign(a_launch("speaks", slots=(A,), intent=STOP))
    until("the end is reported", lambda: node.control_plane.exits("speaks"))
    until(
        "following ends", lambda: [a for a in node.control_plane.log_answers if a.done], patience=60
    )
    assert "leaving as Stopped" in node.control_plane.output("1")
    node.control_plane.ask_logs(
        nodes_pb2.ServeLogsResponse(request_id="2", uid="speaks", attempt=1, tail_lines=1)
    )
    until(
        "the last line comes",
        lambda: [a for a in node.control_plane.log_answers if a.request_id == "2" and a.done],
    )
    assert node.control_plane.output("2").startswith("leaving as Stopped")
    node.control_plane.ask_logs(
        nodes_pb2.ServeLogsResponse(request_id="3", uid="speaks", attempt=7)
    )
    until(
        "the absence is said",
        lambda: [
            a.note
            for a in node.control_plane.log_answers
            if a.request_id == "3" and "no output" in a.note
        ],
    )
