"""What people do with jobs on the command line, against a control plane of the API's type."""

import json
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.generated import common_pb2, jobs_pb2
from headrace.api.manifest import TrainingJob, parse
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.wait import wait_for
from headrace.client.client import Client
from headrace.client.context import Context
from headrace.client.trouble import CallError
from tests.contract.cli.conftest import Headrace, unpointed
from tests.contract.cli.fake_control_plane import FakeControlPlane, a_node, as_canonical, manifest


def a_file(folder: Path, *documents: dict[str, Any], name: str = "job.yaml") -> str:
    path = folder / name
    path.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    return str(path)


def units(*nodes: str) -> list[common_pb2.LaunchUnit]:
    return [
        common_pb2.LaunchUnit(index=at, node=node, accelerators=[f"{node}-{at}"], first_rank=at)
        for at, node in enumerate(nodes)
    ]


# apply


def test_apply_submits_every_job_of_files_and_folders(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    a_file(folder, manifest("a"), manifest("b"))
    (folder / "notes.txt").write_text("not a manifest")
    result = headrace("apply", "-f", str(folder), "-f", a_file(tmp_path, manifest("c")))
    assert result.exit_code == ExitCode.OK, result.output
    assert result.stdout.splitlines() == ["job/a created", "job/b created", "job/c created"]
    assert set(plane.jobs) == {"uid-a", "uid-b", "uid-c"}


def test_apply_reads_standard_input_and_says_unchanged(headrace: Headrace) -> None:
    text = json.dumps(manifest("a"))
    assert headrace("apply", "-f", "-", stdin=text).stdout == "job/a created\n"
    assert headrace("apply", "-f", "-", stdin=text).stdout == "job/a unchanged\n"
    assert headrace("apply", "-f", "-", "-o", "name", stdin=text).stdout == "job/a\n"


def test_a_wrong_field_is_told_with_file_line_and_nearest_name_and_nothing_is_applied(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    right = a_file(tmp_path, manifest("a"), name="a.yaml")
    path = tmp_path / "b.yaml"
    path.write_text("apiVersion: headrace.dev/v1alpha1\nkind: TrainingJob\nspek: {}\n")
    result = headrace("apply", "-f", right, "-f", str(path))
    assert result.exit_code == ExitCode.REFUSED
    assert f"{path}:3: spek:" in result.stderr
    assert "did you mean spec?" in result.stderr
    assert not plane.jobs


def test_what_the_control_plane_refuses_is_told_by_line_too(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    document = manifest("a", managedBy="kueue.x-k8s.io/multikueue")
    file = a_file(tmp_path, manifest("good"), document)
    line = Path(file).read_text().splitlines().index("  managedBy: kueue.x-k8s.io/multikueue") + 1
    result = headrace("apply", "-f", file)
    assert result.exit_code == ExitCode.REFUSED
    assert f"{file}:{line}: spec.managedBy:" in result.stderr
    assert not plane.jobs


def test_dry_run_changes_nothing(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    result = headrace("apply", "--dry-run", "-f", a_file(tmp_path, manifest("a")))
    assert result.exit_code == ExitCode.OK
    assert "job/a" in result.stdout
    assert not plane.jobs


@pytest.mark.usefixtures("home")
def test_dry_run_without_a_control_plane_checks_what_it_can(tmp_path: Path) -> None:
    good = unpointed("apply", "--dry-run", "-f", a_file(tmp_path, manifest("a")))
    assert good.exit_code == ExitCode.OK
    assert "not checked against a control plane" in good.stderr
    wrong = manifest("a", volumes=[{"name": "v", "mountPath": "/v", "hostPath": {"path": "/w"}}])
    refused = unpointed("apply", "--dry-run", "-f", a_file(tmp_path, wrong))
    assert refused.exit_code == ExitCode.REFUSED
    assert "mounts nothing" in refused.stderr


def test_relative_stores_lie_in_the_home_of_the_local_cluster(
    headrace: Headrace, plane: FakeControlPlane, home: Path, tmp_path: Path
) -> None:
    file = a_file(tmp_path, manifest("a", checkpoint={"store": "checkpoints"}))
    assert headrace("apply", "-f", file).exit_code == ExitCode.OK
    stored = json.loads(plane.jobs["uid-a"].manifest_json)
    assert stored["spec"]["checkpoint"]["store"] == str((home / "checkpoints").resolve())


@pytest.mark.usefixtures("home")
def test_relative_stores_are_refused_for_a_cluster_elsewhere(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    file = a_file(tmp_path, manifest("a", checkpoint={"store": "checkpoints"}))
    result = unpointed("--server", plane.address, "apply", "-f", file)
    assert result.exit_code == ExitCode.REFUSED
    assert "spec.checkpoint.store: 'checkpoints' is a relative path" in result.stderr


def test_a_misspelt_data_source_is_not_taken_for_a_path(headrace: Headrace, tmp_path: Path) -> None:
    file = a_file(tmp_path, manifest("a", data={"source": "python-stdlb"}))
    result = headrace("apply", "-f", file)
    assert result.exit_code == ExitCode.REFUSED
    assert "did you mean python-stdlib?" in result.stderr


def test_a_manifest_about_another_uid_is_refused(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    plane.put("a")
    document = manifest("a")
    document["metadata"]["uid"] = "uid-old"
    result = headrace("apply", "-f", a_file(tmp_path, document))
    assert result.exit_code == ExitCode.REFUSED
    assert "uid-a now" in result.stderr


@pytest.mark.parametrize(
    ("stage", "code"), [("Succeeded", ExitCode.OK), ("Failed", ExitCode.JOB_FAILED)]
)
def test_apply_wait_ends_with_the_job(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path, stage: str, code: ExitCode
) -> None:
    def finish() -> None:
        while not any(call == "WatchJobs" for call, _ in list(plane.asked)):
            threading.Event().wait(0.01)
        plane.put("a", "Running", plan="dp2")
        plane.put("a", stage, reason=common_pb2.Reason(code="RetriesExhausted"))

    thread = threading.Thread(target=finish)
    thread.start()
    result = headrace("apply", "--wait", "-f", a_file(tmp_path, manifest("a")))
    thread.join()
    assert result.exit_code == code, result.output
    assert "job/a Running dp2" in result.stderr


FORGOTTEN = [
    ("Succeeded", ""),
    ("RetriesExhausted", "a failed: RetriesExhausted"),
    ("Withdrawn", "a was withdrawn"),
    ("", "does not tell"),
]


def forget(plane: FakeControlPlane, code: str) -> None:
    """What the log says of a job once it is forgotten; an older log gives no reason."""
    plane.events.append(
        jobs_pb2.LoggedEvent(
            sequence=7,
            kind="CycleDecided",
            uid="uid-a",
            reason=common_pb2.Reason(code=code),
            body_json='{"uid":"uid-a","kind":"ForgetJob"}',
        )
    )


@pytest.mark.parametrize(("code", "told"), FORGOTTEN)
@pytest.mark.parametrize("seen", [True, False])
def test_waiting_ends_with_the_true_outcome_of_a_job_that_is_gone_already(
    plane: FakeControlPlane, code: str, told: str, seen: bool
) -> None:
    def go() -> None:
        while not any(call == "WatchJobs" for call, _ in list(plane.asked)):
            threading.Event().wait(0.01)
        plane.forget("uid-a")

    forget(plane, code)
    thread = threading.Thread(target=go)
    if seen:
        plane.put("a", "Running")
        thread.start()
    failing = pytest.raises(CommandError, match=told) if told else nullcontext()
    with Client(Context(plane.address)) as client, failing:
        wait_for(client, {"uid-a": "a"}, 30.0)
    if seen:
        thread.join()


def test_apply_wait_gives_up_in_time_and_leaves_the_job(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    file = a_file(tmp_path, manifest("a"))
    result = headrace("apply", "--wait", "--timeout", "0.3", "-f", file)
    assert result.exit_code == ExitCode.TIMED_OUT
    assert "uid-a" in plane.jobs


# get and describe


def test_get_jobs_fits_80_columns(headrace: Headrace, plane: FakeControlPlane) -> None:
    plane.put(
        "a-job-with-a-name-that-is-as-long-as-kubernetes-allows-names-to",
        plan="dp64-ga16",
        units=units("node-a"),
        queue="a-queue-of-a-rather-large-department",
        progress=common_pb2.Progress(step=99_999, steps_total=99_999),
    )
    plane.put("short", "Queued")
    result = headrace("get", "jobs")
    assert result.exit_code == ExitCode.OK
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["NAME", "QUEUE", "STATE", "PLAN", "ACC", "PROGRESS", "ETA", "AGE"]
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80


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
    assert headrace("get", "jobs", "a", "x").exit_code == ExitCode.NOT_FOUND
    for command in (("describe", "job", "x"), ("logs", "x"), ("explain", "x"), ("events", "x")):
        result = headrace(*command)
        assert result.exit_code == ExitCode.NOT_FOUND, command
        assert "no job x" in result.stderr
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
    assert "no job x" in result.stderr
    requests = [request for call, request in plane.asked if call == "WithdrawJob"]
    assert [(each.uid, each.purge) for each in requests] == [("uid-a", False), ("uid-b", False)]
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
