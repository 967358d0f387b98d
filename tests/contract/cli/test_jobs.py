"""What people do with jobs on the command line, against a control plane of the API's type."""

import json
import threading
import time
from pathlib import Path

import grpc
import pytest
import yaml
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.generated import common_pb2, jobs_pb2
from headrace.api.manifest import TrainingJob, parse
from headrace.cli.exit_codes import ExitCode
from headrace.client.client import Client
from headrace.client.context import Context
from headrace.client.trouble import CallError
from tests.contract.cli.conftest import Headrace, a_file, unpointed
from tests.contract.cli.fake_control_plane import (
    STARTED_BECAUSE,
    FakeControlPlane,
    a_node,
    as_canonical,
    manifest,
)


def units(*nodes: str) -> list[common_pb2.LaunchUnit]:
    return [
        common_pb2.LaunchUnit(index=at, node=node, accelerators=[f"{node}-{at}"], first_rank=at)
        for at, node in enumerate(nodes)
    ]


LONGEST = "dp128-tp8-pp16.interleaved-z1-ga128-gc-offload"

# get and describe


def test_get_jobs_fits_80_columns(headrace: Headrace, plane: FakeControlPlane) -> None:
    plane.put(
        "a-job-with-a-name-that-is-as-long-as-kubernetes-allows-names-to",
        plan=LONGEST,
        units=units("node-a"),
        queue="a-queue-of-a-rather-large-department",
        progress=common_pb2.Progress(step=99_999, steps_total=99_999),
    )
    plane.put("short", "Queued")
    result = headrace("get", "jobs")
    assert result.exit_code == ExitCode.OK
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["NAME", "QUEUE", "STATE", "PLAN", "ACC", "PROGRESS", "ETA", "AGE"]
    assert max(map(len, lines)) <= 80
    at = lines[0].index("PLAN")
    assert "".join(line[at:].split()[0] for line in lines[1:4]).startswith(LONGEST)


def test_a_wide_row_tells_a_reason_without_the_output_of_ranks(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    reason = common_pb2.Reason(code="RankFailed", message="exit 1\nIts last lines:\nTraceback\n x")
    plane.put("a", "Failed", reason=reason)
    (_, line) = headrace("get", "jobs", "-o", "wide").stdout.splitlines()
    assert line.endswith("  RankFailed: exit 1 …")


def test_get_prints_objects_that_can_be_applied_again(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.put(
        "a",
        plan="dp2",
        units=units("node-a", "node-b"),
        conditions=[
            common_pb2.Condition(
                type="Running",
                status="True",
                reason="Started",
                message="4 were free",
                observed_generation=1,
                last_transition_time=Timestamp(seconds=1_790_000_000),
            )
        ],
        progress=common_pb2.Progress(step=3, steps_total=400, loss=1.5),
        end=common_pb2.Estimate(low=1.79e9, high=1.8e9, coverage=0.9, made_at=Timestamp(seconds=1)),
    )
    for form, load in (("yaml", yaml.safe_load), ("json", json.loads)):
        document = load(headrace("get", "job", "a", "-o", form).stdout)
        found = parse(document)
        assert isinstance(found, TrainingJob), found
        assert found.status is not None
        assert found.status.conditions[0].reason == "Started"
        assert found.status.nodes == ("node-a", "node-b")
        assert "phase" not in document["status"]
        again = headrace("apply", "-f", "-", stdin=json.dumps(document))
        assert again.stdout == "job/a unchanged\n"


def test_get_lists_every_page_of_the_namespace_or_of_all(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    for name in "abcde":
        plane.put(name)
    plane.put("elsewhere", namespace="other")
    names = headrace("get", "jobs", "-o", "name").stdout.split()
    assert names == [f"job/{name}" for name in "abcde"]
    assert "job/other/elsewhere" in headrace("get", "jobs", "-A", "-o", "name").stdout


def test_what_is_not_there_is_said_with_its_exit_status(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.put("a")
    for command in ("get jobs a x", "describe job x", "logs x", "explain x", "events x"):
        result = headrace(*command.split())
        assert result.exit_code == ExitCode.NOT_FOUND, command
        told = "headrace: no job 'default/x'; `headrace get jobs` lists all\n"
        assert result.stderr == told, command
    assert "no jobs 'default/x', 'default/y'; " in headrace("get", "jobs", "x", "y").stderr
    assert "no job 'x'; `headrace get jobs -A` " in headrace("get", "jobs", "-A", "x").stderr
    for command in ("get nodes x", "describe node x"):
        assert headrace(*command.split()).stderr.endswith("no node 'x'; there are none\n")
    wrong = headrace("get", "jbs")
    assert wrong.exit_code == ExitCode.USAGE
    assert "did you mean jobs?" in wrong.stderr


def test_nodes_and_queues_have_tables_too(headrace: Headrace, plane: FakeControlPlane) -> None:
    plane.put("a")
    plane.nodes = [a_node("node-a", {"node-a-slot-0": "uid-a"})]
    assert "1/2" in headrace("get", "nodes").stdout
    assert "a" in headrace("describe", "node", "node-a").stdout.splitlines()[-2]
    assert headrace("get", "nodes", "-o", "name").stdout == "node/node-a\n"
    assert "everyone" in headrace("get", "queues").stdout
    assert "default" in headrace("describe", "queue", "default").stdout


def test_a_watch_goes_on_over_an_outage_and_gives_up_after_its_patience(
    plane: FakeControlPlane,
) -> None:
    plane.put("a", "Queued")
    stages: list[str] = []
    outages: list[CallError] = []

    def watch(client: Client) -> None:
        for message in client.watch_jobs(outage_seconds=5.0, on_outage=outages.append):
            if message.kind == jobs_pb2.WatchJobsResponse.KIND_SYNCED:
                plane.put("a", "Running")
                continue
            stages.append(message.job.status.stage)
            if stages[-1] == "Running":
                plane.stop()

    with (
        Client(Context(plane.address), pause=lambda _: None) as client,
        pytest.raises(CallError, match="no control plane answers"),
    ):
        watch(client)
    assert stages == ["Queued", "Running"]
    assert len(outages) == 1, "told once, not at every try"


def test_a_watch_whose_past_is_forgotten_begins_anew_and_tells_who_went(
    plane: FakeControlPlane,
) -> None:
    plane.put("goes", "Running")
    plane.put("stays", "Queued")
    plane.watch_breaks = 1
    kinds = jobs_pb2.WatchJobsResponse
    told: list[tuple[int, str, str]] = []
    with Client(Context(plane.address), pause=lambda _: None) as client:
        for message in client.watch_jobs():
            told.append((message.kind, message.job.name, message.job.status.stage))
            if [kind for kind, _, _ in told].count(kinds.KIND_SYNCED) == 2:
                break
            if message.kind == kinds.KIND_SYNCED:
                plane.forget("uid-goes")
                plane.put("stays", "Running")
                plane.oldest = 10**6
    assert told == [
        (kinds.KIND_PRESENT, "goes", "Running"),
        (kinds.KIND_PRESENT, "stays", "Queued"),
        (kinds.KIND_SYNCED, "", ""),
        (kinds.KIND_PRESENT, "stays", "Running"),
        (kinds.KIND_GONE, "goes", ""),
        (kinds.KIND_SYNCED, "", ""),
    ]


def test_get_watch_prints_each_change_as_a_row(
    headrace: Headrace, plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.put("a", "Queued")
    changes = [
        jobs_pb2.WatchJobsResponse(kind=kind, job=plane.put("a", stage))
        for kind, stage in (
            (jobs_pb2.WatchJobsResponse.KIND_PRESENT, "Queued"),
            (jobs_pb2.WatchJobsResponse.KIND_SYNCED, "Queued"),
            (jobs_pb2.WatchJobsResponse.KIND_PRESENT, "Running"),
            (jobs_pb2.WatchJobsResponse.KIND_GONE, "Running"),
        )
    ]
    # The real stream never ends by itself.
    monkeypatch.setattr(Client, "watch_jobs", lambda *_, **__: iter(changes))
    told = headrace("get", "jobs", "-w")
    assert [line.split()[2] for line in told.stdout.splitlines()] == ["STATE", "Queued", "Running"]
    assert "job/a is gone" in told.stderr


def test_describe_tells_names_of_variables_and_never_a_value(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    secret = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    document = manifest("a", env=[secret, {"name": "PLAIN", "value": "hunter2"}])
    plane.put("a", manifest_json=as_canonical(document), units=units("node-a"), plan="dp1")
    told = headrace("describe", "job", "a").stdout
    assert "TOKEN (secret hub/token), PLAIN" in told
    assert "hunter2" not in told
    assert "http://127.0.0.1:8265" in told


def test_describe_tells_the_plans_and_the_present_one_in_words(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plans = ["dp4", "pp2.1f1b-ga4", "tp2", "dp2-z3-gc", "dp2-ga2", "dp1-ga4-gc", "dp1"]
    document = manifest("a", plans=plans, model={"name": "gpt2", "weights": "/w"})
    plane.put("a", manifest_json=as_canonical(document), plan="dp1-z3-ga4-gc-offload")
    lines = headrace("describe", "job", "a").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    at = next(number for number, line in enumerate(lines) if line.startswith("Plans:"))
    assert " ".join(lines[at : at + 2]).split()[1:] == ", ".join(plans).split()
    told = " ".join(" ".join(lines).split())
    assert "Model: gpt2 with the weights in /w on python-stdlib" in told
    assert (
        "Plan: dp1-z3-ga4-gc-offload (a single rank, ZeRO-3, 4 micro-batches, activations "
        "computed twice, offloaded to host memory)"
    ) in told


def test_describe_shows_each_switch_with_where_its_time_went(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    def phases(*each: tuple[str, float]) -> list[common_pb2.Phase]:
        return [common_pb2.Phase(name=name, seconds=took) for name, took in each]

    in_memory = phases(
        ("build", 0.031),
        ("parameters", 0.212),
        ("equip", 0.18),
        ("moments", 0.2),
        ("first_step", 2),
    )
    restart = phases(("drain", 1), ("leave", 0.5), ("wait", 0), ("start", 4.25), ("load", 3))
    wide = "dp2-tp2-pp2.interleaved-z2-ga16-gc"
    switches = [
        jobs_pb2.Switch(
            kind="Memory",
            before="dp8",
            after=wide,
            step=120,
            reason="PlanChanged",
            stood_still_seconds=0.623,
            phases=in_memory,
        ),
        jobs_pb2.Switch(
            kind="Restart",
            before=wide,
            after="dp1",
            accelerators_before=8,
            accelerators_after=1,
            step=99_000,
            stood_still_seconds=8.75,
            phases=restart,
        ),
    ]
    plane.put("a", plan="dp1", plan_asked_for="dp1-ga4", switches=switches)
    lines = headrace("describe", "job", "a").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    told = " ".join(" ".join(lines).split())
    assert "Asked for: dp1-ga4 (a single rank, 4 micro-batches)" in told
    heading = next(number for number, line in enumerate(lines) if line.startswith("SWITCH"))
    table_ = lines[heading + 1 :]
    assert [word for word in " ".join(table_).split() if word in ("memory", "restart")] == [
        "restart",
        "memory",
    ]
    for seen in ("0.62 s", "8.75 s", "start 4.25", "moments 0.20", "120", "99000"):
        assert seen in told
    document = json.loads(headrace("describe", "job", "a", "-o", "json").stdout)["job"]
    assert TrainingJob.model_validate_json(json.dumps(document)).status is not None
    status = document["status"]
    assert status["planAskedFor"] == "dp1-ga4"
    assert [each["kind"] for each in status["switches"]] == ["Memory", "Restart"]
    assert status["switches"][1]["phases"][3] == {"name": "start", "tookSeconds": 4.25}
    assert status["switches"][1]["stoodStillSeconds"] == 8.75


def test_describe_names_plans_and_nodes_that_are_not_tried_again(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    out = [jobs_pb2.OutOfMemory(plan="dp2", type="H100"), jobs_pb2.OutOfMemory(plan="dp1-ga4")]
    soon = Timestamp(seconds=int(time.time()) + 330)
    hung = jobs_pb2.SuspectedNode(node="node-b", reason="RankHung", attempt=2, until=soon)
    plane.put("a", out_of_memory=out, suspected_nodes=[hung])
    told = headrace("describe", "job", "a").stdout
    assert "Out of memory:     dp2 on H100, dp1-ga4 on ?: not tried there again" in told
    status = json.loads(headrace("describe", "job", "a", "-o", "json").stdout)["job"]["status"]
    assert status["outOfMemory"][0] == {"plan": "dp2", "type": "H100"}
    kept_off = "Keeps off: node-b for 5m (attempt 2: RankHung), while there is room elsewhere"
    assert kept_off in " ".join(told.split())
    assert status["suspectedNodes"][0]["node"] == "node-b"


def test_describe_says_why_attempts_have_jumped(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.put("a", attempt=3)
    plane.put("restored", attempt=1_795_701_110)
    assert "3, 0 failures" in headrace("describe", "job", "a").stdout
    told = headrace("describe", "job", "restored").stdout
    assert "1795701110 (counted on from a restore), 0 failures" in told


def test_describe_tells_programs_the_same(headrace: Headrace, plane: FakeControlPlane) -> None:
    plane.put("a", units=units("node-a"))
    plane.nodes = [a_node("node-a")]
    plane.events = [jobs_pb2.LoggedEvent(sequence=8, kind="UnitExited", uid="uid-a")]
    told = json.loads(headrace("describe", "job", "a", "-o", "json").stdout)
    assert told["job"]["status"]["nodes"] == ["node-a"]
    assert told["explanation"]["decisions"][0]["reason"]["message"] == STARTED_BECAUSE
    assert [each["sequence"] for each in told["events"]] == [8]
    node = yaml.safe_load(headrace("describe", "node", "node-a", "-o", "yaml").stdout)
    assert node["node"]["contact"] == "Online"
    queue = json.loads(headrace("describe", "queue", "default", "-o", "json").stdout)
    assert [each["metadata"]["name"] for each in queue["jobs"]] == ["a"]
    assert headrace("describe", "job", "a", "-o", "name").stdout == "job/a\n"


def test_reasons_are_told_whole_on_80_columns(headrace: Headrace, plane: FakeControlPlane) -> None:
    lacks = "wants 6 accelerators, the usable nodes of the cluster have 4 of them altogether"
    failed = "failed on node-a: unit 0 was ended by SIGKILL, which nobody here had ordered"
    condition = common_pb2.Condition(
        type="Reconfiguring", status="False", reason="GrownIntoFreeAccelerators", message=lacks
    )
    plane.put("a", conditions=[condition])
    plane.events = [
        jobs_pb2.LoggedEvent(sequence=8, kind="UnitExited", uid="uid-a", message=failed)
    ]
    for command, reasons in (
        (("describe", "job", "a"), (lacks, failed)),
        (("explain", "a"), (STARTED_BECAUSE,)),
    ):
        lines = headrace(*command).stdout.splitlines()
        assert max(map(len, lines)) <= 80
        words = " ".join(lines).split()
        for reason in reasons:
            assert all(words.count(word) >= reason.split().count(word) for word in reason.split())


def test_explain_says_what_is_missing_and_who_holds_it(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.put("a", "Queued")
    told = headrace("explain", "a").stdout
    assert "3 short" in told
    assert "default/b holds 3" in told
    assert "place 2" in told
    assert "StartAttempt 1 dp4" in told
    assert json.loads(headrace("explain", "a", "-o", "json").stdout)["position"] == 2


def test_events_are_paged_and_carry_their_bodies(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.put("a")
    plane.events = [
        jobs_pb2.LoggedEvent(
            sequence=number,
            kind="UnitStarted",
            uid="uid-a",
            job_name="a",
            message=f"unit {number}",
            body_json='{"unit": 1}',
        )
        for number in range(1, 6)
    ]
    assert len(headrace("events", "a").stdout.splitlines()) == 6
    found = json.loads(headrace("events", "-o", "json").stdout)
    assert [each["sequence"] for each in found["items"]] == [1, 2, 3, 4, 5]
    assert found["items"][0]["body"] == {"unit": 1}


def test_steps_are_among_the_events_only_if_they_are_asked_for(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.put("a")
    kinds = ["JobProgressed"] * 4 + ["UnitExited"] + ["JobProgressed"] * 3
    plane.events = [
        jobs_pb2.LoggedEvent(sequence=number, kind=kind, uid="uid-a")
        for number, kind in enumerate(kinds, start=1)
    ]
    assert headrace("events", "a", "-o", "name").stdout.split() == ["event/5"]
    assert len(headrace("events", "a", "--progress", "-o", "name").stdout.split()) == len(kinds)
    only_steps = headrace("events", "a", "--after", "5")
    assert (only_steps.stdout, only_steps.exit_code) == ("", 0)
    assert only_steps.stderr == "no events but steps: --progress tells them\n"


def test_a_job_that_is_gone_is_called_by_its_name(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    gone, unknown = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"
    actions = [{"kind": "ForgetJob", "uid": uid} for uid in (gone, unknown)]
    plane.events = [
        jobs_pb2.LoggedEvent(sequence=1, kind="JobWithdrawn", uid=gone, job_name="train"),
        # The server gives the uid of a job whose submission is no longer in the log.
        jobs_pb2.LoggedEvent(sequence=2, kind="JobWithdrawn", uid=unknown, job_name=unknown),
        jobs_pb2.LoggedEvent(
            sequence=3, kind="CycleDecided", body_json=json.dumps({"actions": actions})
        ),
    ]
    plane.nodes = [a_node("node-a", {"node-a-slot-0": gone})]
    listed = headrace("events").stdout.splitlines()
    assert [line.split()[3] for line in listed[1:3]] == ["train", "66666666…"]
    told = headrace("top", "--once").stdout
    assert "train | free" in told
    assert "train: forget" in told
    assert "66666666…: forget" in told


def test_top_shows_one_picture_where_nobody_watches(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.put(
        "a", plan="dp2", units=units("node-a"), progress=common_pb2.Progress(step=1, steps_total=2)
    )
    plane.nodes = [a_node("node-a", {"node-a-slot-0": "uid-a"})]
    because = {"code": "GrownIntoFreeAccelerators", "message": "2 are free " * 20}
    body = {"actions": [{"kind": "StopAttempt", "uid": "uid-a", "attempt": 1, "reason": because}]}
    plane.events = [
        jobs_pb2.LoggedEvent(sequence=5, kind="CycleDecided", body_json=json.dumps(body))
    ]
    plane.put("b", plan=LONGEST, units=units("node-b"))
    told = headrace("top")
    assert told.exit_code == ExitCode.OK
    assert "█████░░░░░" in told.stdout
    assert "a | free" in told.stdout
    assert "a: checkpoint and stop attempt 1, because GrownIntoFree" in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 80


# delete


def test_delete_goes_by_uid_and_keeps_checkpoints(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.put("a")
    plane.put("b")
    result = headrace("delete", "a", "x", "b", "--wait")
    assert result.exit_code == ExitCode.NOT_FOUND
    assert "no job 'default/x'" in result.stderr
    requests = [request for call, request in plane.asked if call == "WithdrawJob"]
    assert [(each.uid, each.purge) for each in requests] == [("uid-a", False), ("uid-b", False)]
    assert not plane.jobs


def test_ctrl_c_while_jobs_go_says_that_they_go(
    headrace: Headrace, plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    plane.put("a")
    monkeypatch.setattr(Client, "watch_jobs", interrupted)
    result = headrace("delete", "a", "--wait")
    assert result.exit_code == ExitCode.INTERRUPTED
    assert "interrupted; a will go all the same" in result.stderr
    assert not plane.jobs


def test_delete_purges_and_ends_orphans_on_request(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.put("a")
    assert headrace("delete", "a", "--purge").exit_code == ExitCode.OK
    assert headrace("delete", "--orphan", "uid-unknown").exit_code == ExitCode.OK
    requests = [request for call, request in plane.asked if call == "WithdrawJob"]
    assert [(each.uid, each.purge) for each in requests] == [
        ("uid-a", True),
        ("uid-unknown", False),
    ]
    assert headrace("delete").exit_code == ExitCode.USAGE


# logs


def test_logs_print_what_was_kept(headrace: Headrace, plane: FakeControlPlane) -> None:
    plane.put("a", attempt=1, units=units("node-a", "node-b"))
    plane.output[1, 1] = [b"step 1\n", b"step 2\n"]
    assert headrace("logs", "a", "--rank", "1").stdout == "step 1\nstep 2\n"
    assert headrace("logs", "a", "--rank", "2").exit_code == ExitCode.NOT_FOUND


def test_logs_of_an_attempt_that_never_was_are_an_error(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.put("a", "Succeeded", attempt=2)
    told = headrace("logs", "a", "-a", "9")
    assert told.exit_code == ExitCode.NOT_FOUND
    assert "wanted an attempt of a between 1 and 2, got 9" in told.stderr
    told = headrace("logs", "a", "-a", "9", "-f")
    assert told.exit_code == ExitCode.NOT_FOUND
    assert "the job ended without an attempt 9" in told.stderr


def test_logs_without_a_line_say_how_the_job_stands(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.put("a", "BackingOff", attempt=1)
    plane.tells_the_end = False
    told = headrace("logs", "a")
    assert not told.stdout
    assert "rank 0 of attempt 1 wrote nothing; the job is BackingOff" in told.stderr


def test_logs_follow_over_an_outage_without_losing_or_repeating_a_line(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.put("a", "Succeeded", attempt=1)
    plane.output[1, 0] = [b"step 1\nstep 2\n", b"step 3\n", b"step 4\n"]
    plane.log_breaks = 2
    result = headrace("logs", "a", "-f")
    assert result.exit_code == ExitCode.OK, result.output
    assert result.stdout == "step 1\nstep 2\nstep 3\nstep 4\n"
    assert plane.log_breaks == 0
    assert result.stderr.count("the control plane does not answer") == 1


def test_logs_follow_the_next_attempt_until_the_job_is_finished(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.put("a", "Running", attempt=1, units=units("node-a", "node-b"))
    plane.output = {(1, 1): [b"first\n"], (2, 0): [b"second\n"]}

    def go_on() -> None:
        while not any(call == "StreamLogs" for call, _ in list(plane.asked)):
            threading.Event().wait(0.01)
        plane.put("a", "Running", attempt=2, units=units("node-a"), plan="dp1")
        while not any(
            call == "StreamLogs" and asked.attempt == 2 for call, asked in list(plane.asked)
        ):
            threading.Event().wait(0.01)
        plane.put("a", "Succeeded", attempt=2)

    thread = threading.Thread(target=go_on)
    thread.start()
    result = headrace("logs", "a", "-f", "--rank", "1")
    thread.join()
    assert result.exit_code == ExitCode.OK, result.output
    assert result.stdout == "first\nsecond\n"
    assert "attempt 2: dp1" in result.stderr


# trouble


@pytest.mark.parametrize("away", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_a_restarting_control_plane_is_asked_again(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path, away: grpc.StatusCode
) -> None:
    plane.unavailable, plane.away = 2, away
    result = headrace("apply", "-f", a_file(tmp_path, manifest("a")))
    assert result.exit_code == ExitCode.OK
    assert plane.unavailable == 0


@pytest.mark.usefixtures("home")
def test_no_control_plane_is_a_sentence_and_an_exit_status() -> None:
    unknown = unpointed("get", "jobs")
    assert unknown.exit_code == ExitCode.UNREACHABLE
    assert "headrace up" in unknown.stderr
    far = unpointed("--server", "example.invalid:7070", "get", "jobs")
    assert far.exit_code == ExitCode.UNREACHABLE
    assert "--tls-ca" in far.stderr


def test_a_refusal_for_want_of_rights_is_not_a_crash(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    plane.refuse = "viewer may not submit to queue default"
    result = headrace("apply", "-f", a_file(tmp_path, manifest("a")))
    assert result.exit_code == ExitCode.REFUSED
    assert plane.refuse in result.stderr
