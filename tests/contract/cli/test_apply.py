"""What `headrace apply` takes, refuses, prints and waits for."""

import json
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.api.generated import common_pb2, jobs_pb2
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.wait import wait_for
from headrace.client.client import Client
from headrace.client.context import Context
from tests.contract.cli.conftest import Headrace, a_file, unpointed
from tests.contract.cli.fake_control_plane import FakeControlPlane, a_node, manifest


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


def test_apply_says_of_a_large_model_that_it_would_train_on_cpu_slots(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    small, large = manifest("small"), manifest("large")
    large["spec"]["model"] = {"name": "gpt2", "preset": "1.5b"}
    apply = ("apply", "-f", "-")
    assert headrace(*apply, stdin=json.dumps(large)).stderr == ""  # Nodes may join yet.
    plane.nodes = [a_node("n1")]
    assert headrace(*apply, stdin=json.dumps(small)).stderr == ""
    assert headrace(*apply, stdin=json.dumps(large)).stderr == ""  # It was there, and unchanged.
    large["metadata"]["name"] = "again"
    told = headrace(*apply, stdin=json.dumps(large))
    assert told.exit_code == ExitCode.OK
    assert "job/again would train 1.6 billion parameters on CPU slots" in told.stderr
    assert "a replica takes some 25 GB before its first sample" in told.stderr
    gpus = a_node("n2")
    for each in gpus.node.accelerators:
        each.type = "nvidia-h100"
    plane.nodes.append(gpus)
    large["metadata"]["name"] = "with-gpus"
    assert headrace(*apply, stdin=json.dumps(large)).stderr == ""
    large["metadata"]["name"] = "of-cpu"
    large["spec"]["accelerators"]["type"] = "cpu"
    told = headrace(*apply, "--dry-run", stdin=json.dumps(large))
    assert "job/of-cpu would train" in told.stderr


def test_apply_says_what_keeps_an_accepted_job_from_running(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    text = json.dumps(manifest("a", queue="nosuch"))
    for more in (("--dry-run",), ()):
        told = headrace("apply", "-f", "-", *more, stdin=text)
        assert told.exit_code == ExitCode.OK
        assert "there is no queue nosuch; `headrace queue set nosuch`" in told.stderr
    text = json.dumps(manifest("a"))
    assert headrace("apply", "-f", "-", stdin=text).stderr == ""
    plane.put(
        "a",
        "Failed",
        manifest_json=plane.jobs["uid-a"].manifest_json,
        reason=common_pb2.Reason(code="RetriesExhausted"),
        progress=common_pb2.Progress(step=250, checkpoint_step=200),
    )
    told = headrace("apply", "-f", "-", stdin=text)
    assert told.stdout == "job/a unchanged\n"
    assert "job/a is over (RetriesExhausted) and does not run again; `headrace delete a`" in (
        told.stderr
    )
    assert "spec.checkpoint.startFrom.uid: uid-a at step 200" in told.stderr


def test_apply_prints_one_json_document_of_one_job_and_a_list_of_several(
    headrace: Headrace, tmp_path: Path
) -> None:
    one = a_file(tmp_path, manifest("a"))
    two = a_file(tmp_path, manifest("a"), manifest("b"), name="two.yaml")
    told = json.loads(headrace("apply", "-f", one, "-o", "json").stdout)
    assert told == {"job": "default/a", "uid": "uid-a", "result": "created"}
    for form, load in (("json", json.loads), ("yaml", yaml.safe_load)):
        several = load(headrace("apply", "--dry-run", "-f", two, "-o", form).stdout)
        assert several["kind"] == "List"
        assert [each["job"] for each in several["items"]] == ["default/a", "default/b"]


def test_files_without_a_manifest_are_refused(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    """One that is commented out in a folder of others is not worth a word."""
    right, empty = tmp_path / "right", tmp_path / "empty"
    for folder in (right, empty):
        folder.mkdir()
        (folder / "old.yaml").write_text("# nothing any more\n")
    a_file(right, manifest("a"))
    for wrong in (str(empty), str(empty / "old.yaml"), "-"):
        result = headrace("apply", "-f", str(right), "-f", wrong)
        assert result.exit_code == ExitCode.REFUSED
        assert "wanted a TrainingJob, found no document" in result.stderr
        assert not plane.jobs
    assert headrace("apply", "-f", str(right)).exit_code == ExitCode.OK


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
    lost = a_file(tmp_path, manifest("a", data={"source": "no/such/folder"}))
    refused = unpointed("apply", "--dry-run", "-f", lost)
    assert refused.exit_code == ExitCode.REFUSED
    missing = tmp_path / "no/such/folder"
    assert f"digits, random or a path, got 'no/such/folder', and there is no {missing}" in (
        refused.stderr
    )


@pytest.mark.usefixtures("home")
def test_dry_run_without_a_control_plane_prints_json_too(tmp_path: Path) -> None:
    good = unpointed("apply", "--dry-run", "-o", "json", "-f", a_file(tmp_path, manifest("a")))
    assert json.loads(good.stdout) == {"job": "default/a", "uid": "", "result": "is valid"}


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
    wrong = manifest("a", checkpoint={"store": "checkpoints"}, data={"source": "texts"})
    result = unpointed("--server", plane.address, "apply", "-f", a_file(tmp_path, wrong))
    assert result.exit_code == ExitCode.REFUSED
    assert "spec.checkpoint.store: 'checkpoints' is a relative path" in result.stderr
    assert "digits, random or an absolute path, got 'texts'\n" in result.stderr


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


def test_ctrl_c_while_waiting_says_who_goes_on(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.put("a", "Succeeded")
    plane.put("b", "Running")
    watch = Client.watch_jobs

    def interrupted(client: Client, **options: Any) -> Iterator[jobs_pb2.WatchJobsResponse]:
        for message in watch(client, **options):
            yield message
            if message.kind == jobs_pb2.WatchJobsResponse.KIND_SYNCED:
                raise KeyboardInterrupt

    monkeypatch.setattr(Client, "watch_jobs", interrupted)
    with (
        Client(Context(plane.address)) as client,
        pytest.raises((CommandError, KeyboardInterrupt)) as ended,
    ):
        wait_for(client, {"uid-a": "a", "uid-b": "b"}, 0)
    assert isinstance(ended.value, CommandError)
    assert ended.value.code is ExitCode.INTERRUPTED
    assert "interrupted; b goes on" in str(ended.value)
