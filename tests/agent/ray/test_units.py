"""Launch units in a real Ray: from an assignment to a rank's process and back."""

import itertools
import json
import os
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


def test_a_unit_runs_reports_and_stops_as_planned(
    agent: AgentProcess, control_plane: ListeningControlPlane
) -> None:
    ready = agent.start()
    assert ready["accelerators"] == [A, B]
    registered = until("it registers", lambda: list(control_plane.registrations))[0]
    assert [a.type for a in registered.node.accelerators] == ["cpu", "cpu"]

    control_plane.assign("node-a", 1, a_launch("job", slots=(A,)))
    until("the start is reported", lambda: control_plane.starts("job"))
    until("the address is reported", lambda: control_plane.rendezvous("job"))
    until("losses are reported", lambda: len(control_plane.losses("job")) > 20)

    control_plane.assign("node-a", 2, a_launch("job", slots=(A,), intent=STOP))
    ended = until("the end is reported", lambda: control_plane.exits("job"))[0]
    assert ended.outcome == "Stopped"
    losses = control_plane.losses("job")
    assert sorted(losses) == list(range(1, ended.step + 1))
    assert losses[4] == pytest.approx(0.25)
    assert agent.times_started("job") == 1
    until("its actor is gone", lambda: gone(agent.supervisor("job")))


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


def test_the_rank_sees_what_it_should_and_nothing_else(
    agent: AgentProcess, control_plane: ListeningControlPlane, tmp_path: Path
) -> None:
    secret = tmp_path / "secrets" / "hub" / "token"
    secret.parent.mkdir(parents=True)
    secret.write_text("hunter2\n")
    agent.start(HEADRACE_SECRETS_DIR=str(tmp_path / "secrets"))
    env: list[dict[str, Any]] = [
        {"name": "COLOUR", "value": "green"},
        {"name": "HUB", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
    ]
    core = min(os.sched_getaffinity(0))
    control_plane.assign(
        "node-a",
        1,
        a_launch("job", "show-environment", slots=(A,), steps=1, env=env, cpu_cores=(core,)),
    )
    ended = until("the end is reported", lambda: control_plane.exits("job"))[0]
    assert (ended.outcome, ended.step) == ("Succeeded", 1)
    seen = json.loads((agent.folder("job") / "environment.json").read_text())
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
    written = [p for p in agent.state.rglob("*") if p.is_file() and p != secret]
    assert [p.name for p in written if b"hunter2" in p.read_bytes()] == ["environment.json"]


def test_a_missing_secret_is_refused_by_name(
    agent: AgentProcess, control_plane: ListeningControlPlane, tmp_path: Path
) -> None:
    (tmp_path / "secrets").mkdir()
    agent.start(HEADRACE_SECRETS_DIR=str(tmp_path / "secrets"))
    env = [{"name": "HUB", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]
    control_plane.assign("node-a", 1, a_launch("job", slots=(A,), env=env))
    ended = until("the end is reported", lambda: control_plane.exits("job"))[0]
    assert (ended.outcome, ended.reason.code) == ("Failed", "StartRefused")
    assert "secret hub/token" in ended.reason.message
    assert agent.times_started("job") == 0


def test_other_units_wait_for_the_address(
    agent: AgentProcess, control_plane: ListeningControlPlane
) -> None:
    agent.start()
    first = a_launch("job", slots=(A,), units_total=2)
    second = a_launch("job", slots=(B,), unit=1, units_total=2)
    control_plane.assign("node-a", 1, first, second)
    address = until("the address is reported", lambda: control_plane.rendezvous("job"))
    until("the first assignment was applied", lambda: control_plane.reports[-1].applied_number)
    assert not agent.folder("job", unit=1).exists()
    second.rendezvous = first.rendezvous = address
    control_plane.assign("node-a", 2, first, second)
    until("both were started", lambda: {s.unit for s in control_plane.starts("job")} == {0, 1})


def test_a_rank_that_fails_is_reported_with_its_last_lines(
    agent: AgentProcess, control_plane: ListeningControlPlane
) -> None:
    agent.start()
    control_plane.assign("node-a", 1, a_launch("job", "fail", slots=(A,)))
    ended = until("the end is reported", lambda: control_plane.exits("job"))[0]
    assert (ended.outcome, ended.reason.code) == ("Failed", "RankFailed")
    assert "exited with code 3" in ended.reason.message
    assert "Traceback: the tiny child gives up" in ended.reason.message
    # A unit that was started is never started again, even if it stays listed.
    numbers = itertools.count(2)

    def told_again() -> bool:
        # An assignment that comes before the first report's answer has nothing new to hear.
        control_plane.assign("node-a", next(numbers), a_launch("job", "fail", slots=(A,)))
        return len(control_plane.exits("job")) > 1

    until("the end is told again", told_again)
    assert agent.times_started("job") == 1


def test_end_means_now_even_for_the_stubborn_and_their_children(
    agent: AgentProcess, control_plane: ListeningControlPlane
) -> None:
    agent.start()
    wishes = ("ignore-sigterm", "grandchild")
    control_plane.assign("node-a", 1, a_launch("job", *wishes, slots=(A,)))
    until("it trains", lambda: control_plane.losses("job"))
    grandchild = psutil.Process(int((agent.folder("job") / "grandchild").read_text()))
    rank = agent.rank("job")
    control_plane.assign("node-a", 2, a_launch("job", *wishes, slots=(A,), intent=END))
    ended = until("the end is reported", lambda: control_plane.exits("job"))[0]
    assert ended.outcome == "Failed"
    assert not ended.reason.code
    # Reported means released: nothing may be alive by then.
    assert gone(rank)
    assert gone(grandchild)


def test_a_unit_that_was_never_started_is_answered(
    agent: AgentProcess, control_plane: ListeningControlPlane
) -> None:
    agent.start()
    control_plane.assign("node-a", 1, a_launch("job", slots=(A,), intent=END))
    ended = until("the end is reported", lambda: control_plane.exits("job"))[0]
    assert ended.outcome == "NeverStarted"


def test_output_can_be_followed_and_read_afterwards(
    agent: AgentProcess, control_plane: ListeningControlPlane
) -> None:
    agent.start()
    control_plane.assign("node-a", 1, a_launch("job", slots=(A,)))
    until("it trains", lambda: control_plane.losses("job"))
    control_plane.ask_logs(
        nodes_pb2.ServeLogsResponse(request_id="1", uid="job", tail_lines=-1, follow=True)
    )
    until("output comes", lambda: "attempt 1 unit 0" in control_plane.output("1"))
    control_plane.assign("node-a", 2, a_launch("job", slots=(A,), intent=STOP))
    until("the end is reported", lambda: control_plane.exits("job"))
    until("following ends", lambda: [a for a in control_plane.log_answers if a.done], patience=60)
    assert "leaving as Stopped" in control_plane.output("1")
    control_plane.ask_logs(
        nodes_pb2.ServeLogsResponse(request_id="2", uid="job", attempt=1, tail_lines=1)
    )
    until(
        "the last line comes",
        lambda: [a for a in control_plane.log_answers if a.request_id == "2" and a.done],
    )
    assert control_plane.output("2").startswith("leaving as Stopped")
    control_plane.ask_logs(nodes_pb2.ServeLogsResponse(request_id="3", uid="job", attempt=7))
    until(
        "the absence is said",
        lambda: [
            a.note
            for a in control_plane.log_answers
            if a.request_id == "3" and "no output" in a.note
        ],
    )
