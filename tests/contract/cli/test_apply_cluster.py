"""`headrace apply` of queues and the policy: the files that kubectl takes."""

import json
from pathlib import Path
from typing import Any

from headrace.cli.exit_codes import ExitCode
from tests.architecture.source_tree import ROOT
from tests.contract.cli.conftest import Headrace, a_file
from tests.contract.cli.fake_control_plane import FakeControlPlane, manifest

EXAMPLES = ROOT / "examples/cluster"


def an_object(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name}
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }


def test_queues_and_policy_are_set_before_the_jobs_that_need_them(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    documents = (
        manifest("a", queue="research"),
        an_object("Queue", "research", quotaAccelerators=4, submitters=["bo", "ann"]),
        an_object("ClusterPolicy", "default", policy="fifo", rubick={"coolDownSeconds": 7}),
    )
    file = a_file(tmp_path, *documents)
    told = headrace("apply", "-f", file)
    assert told.stdout.splitlines() == [
        "queue/research created",
        "policy/default updated",
        "job/a created",
    ]
    assert told.stderr == ""
    queue = plane.queues["research"]
    assert (queue.quota_accelerators, list(queue.submitters)) == (4, ["ann", "bo"])
    assert plane.settings["policy"] == '"fifo"'
    assert plane.settings["rubick.cool_down_seconds"] == "7.0"
    # What is left out goes back to its default.
    assert plane.settings["rubick.attempts"] == '"default"'
    assert headrace("apply", "-f", file).stdout.splitlines() == [
        "queue/research unchanged",
        "policy/default unchanged",
        "job/a unchanged",
    ]
    documents[1]["spec"]["quotaAccelerators"] = 8
    told = headrace("apply", "-o", "json", "-f", a_file(tmp_path, documents[1]))
    assert json.loads(told.stdout) == {"queue": "research", "result": "updated"}


def test_what_is_wrong_is_told_by_line_and_nothing_is_set(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    documents = (
        an_object("Queue", "research", quotaAccelerator=4),
        an_object("Queue", "other", namespaces=["a", "a"]),
        an_object("ClusterPolicy", "mine", policy="fifo"),
        an_object("ClusterPolicy", "default", rubick={"coolDownSeconds": -1}),
        an_object("Queues", "x"),
        manifest("a"),
    )
    told = headrace("apply", "-f", a_file(tmp_path, *documents))
    assert told.exit_code == ExitCode.REFUSED
    for words in (
        "job.yaml:6: spec.quotaAccelerator: is not a field here; wanted one of borrowing",
        "did you mean quotaAccelerators?",
        "wanted every name once, got a more than once",
        "metadata.name: a cluster has one policy, which is called default, got mine",
        "spec.rubick.coolDownSeconds: wanted at least 0",
        "kind: wanted TrainingJob, Queue or ClusterPolicy, got 'Queues'; did you mean Queue?",
    ):
        assert words in told.stderr
    assert set(plane.queues) == {"default"}
    assert not plane.jobs


def test_a_job_that_its_queue_would_not_take_is_refused_with_it(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    queue = an_object("Queue", "research", namespaces=["team-a"])
    told = headrace("apply", "-f", a_file(tmp_path, queue, manifest("a", queue="research")))
    assert told.exit_code == ExitCode.REFUSED
    assert "spec.queue: queue research takes jobs of the namespaces team-a only" in told.stderr
    assert set(plane.queues) == {"default"}
    ours = manifest("a", queue="research")
    ours["metadata"]["namespace"] = "team-a"
    told = headrace("apply", "-f", a_file(tmp_path, queue, ours))
    assert told.exit_code == ExitCode.OK, told.output


def test_a_dry_run_sets_nothing(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    before = dict(plane.settings)
    told = headrace("apply", "--dry-run", "-f", str(EXAMPLES))
    assert told.stdout.splitlines() == [
        "policy/default would be accepted (dry run)",
        "queue/research would be accepted (dry run)",
    ]
    assert (set(plane.queues), dict(plane.settings)) == ({"default"}, before)


def test_one_thing_described_twice_is_refused(headrace: Headrace, tmp_path: Path) -> None:
    queue = an_object("Queue", "research")
    told = headrace("apply", "-f", a_file(tmp_path, queue, queue))
    assert "research is described twice, first at" in told.stderr


def test_what_manifests_describe_is_deleted(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    file = a_file(tmp_path, an_object("Queue", "research"), manifest("a", queue="research"))
    headrace("apply", "-f", file)
    told = headrace("delete", "-f", file)
    assert told.stdout.splitlines() == [
        "job/a withdrawn; its checkpoints stay",
        "queue/research deleted",
    ]
    assert (set(plane.queues), plane.jobs) == ({"default"}, {})
    told = headrace("delete", "-f", str(EXAMPLES / "policy.yaml"))
    assert told.exit_code == ExitCode.REFUSED
    assert "a cluster always has a policy; `headrace policy rollback` takes" in told.stderr
