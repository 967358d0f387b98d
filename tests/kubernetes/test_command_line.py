"""The command line writes custom resources like the real kubectl, and says who is in the way."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from headrace.api.generated import admin_pb2
from headrace.cli.exit_codes import ExitCode
from headrace.client.context import Context, write
from headrace.client.custom_resources import FIELD_MANAGER, PLURALS
from operators.crds.cluster_policy import CLUSTER_POLICY
from operators.crds.queue import QUEUE
from operators.crds.training_job import TRAINING_JOB
from tests.contract.cli.conftest import unpointed
from tests.contract.cli.fake_control_plane import FakeControlPlane
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.fixtures import Command

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("custom_resources", "home")]

Object = dict[str, Any]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No control plane is known."""
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HEADRACE_SERVER", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "home"


class CommandLine:
    """Runs `headrace` with a kubeconfig whose context names the test's namespace."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def __call__(self, *arguments: str, stdin: str = "") -> Result:
        return unpointed(*arguments, "--kubeconfig", str(self.kubeconfig), stdin=stdin)

    def done(self, *arguments: str, stdin: str = "") -> str:
        ended = self(*arguments, stdin=stdin)
        assert ended.exit_code == ExitCode.OK, ended.output
        return ended.stdout


@pytest.fixture
def headrace(api_server: ApiServer, namespace: str, tmp_path: Path) -> CommandLine:
    told = yaml.safe_load(api_server.kubeconfig.read_text())
    for each in told["contexts"]:
        each["context"]["namespace"] = namespace
    file = tmp_path / "kubeconfig"
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(told))
    return CommandLine(file)


def a_job(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "labels": {"team": "a"}},
        "spec": {
            "accelerators": {"minimum": 1, "maximum": 4},
            "model": {"name": "gpt2", "preset": "tiny"},
            "data": {"source": "python-stdlib"},
            "training": {"globalBatchSize": 8, "steps": 100, "learningRate": 1e-3},
            "checkpoint": {"store": "/checkpoints"},
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            **spec,
        },
    }


def a_queue(name: str, **spec: Any) -> Object:
    metadata = {"name": name}
    group = "headrace.dev/v1alpha1"
    return {"apiVersion": group, "kind": "Queue", "metadata": metadata, "spec": spec}


def there(kubectl: Command, namespace: str, name: str) -> Object:
    found: Object = json.loads(
        kubectl("get", "trainingjob", name, "-n", namespace, "-o", "json", "--show-managed-fields")
    )
    return found


@pytest.fixture
def queue(namespace: str, kubectl: Command) -> Iterator[str]:
    """The name of a queue of this test's own."""
    name = f"q-{namespace[-30:].strip('-')}"
    yield name
    kubectl("delete", "queues.headrace.dev", name, "--ignore-not-found")


def test_one_manifest_makes_the_same_object_as_with_kubectl(
    headrace: CommandLine, kubectl: Command, namespace: str, tmp_path: Path
) -> None:
    texts = {name: yaml.safe_dump(a_job(name)) for name in ("ours", "theirs")}
    file = tmp_path / "job.yaml"
    file.write_text(texts["ours"])
    assert headrace.done("apply", "-f", str(file)) == "job/ours created\n"
    kubectl("apply", "--server-side", "-n", namespace, "-f", "-", stdin=texts["theirs"])
    ours, theirs = (there(kubectl, namespace, name) for name in texts)
    assert ours["spec"] == theirs["spec"]
    assert ours["metadata"]["labels"] == theirs["metadata"]["labels"]
    (by_us,), (by_them,) = (each["metadata"]["managedFields"] for each in (ours, theirs))
    assert by_us["manager"] == FIELD_MANAGER
    assert (by_us["operation"], by_us["fieldsV1"]) == ("Apply", by_them["fieldsV1"])
    assert headrace.done("apply", "-f", str(file)) == "job/ours unchanged\n"
    assert there(kubectl, namespace, "ours") == ours
    changed = a_job("ours", priority=7)
    del changed["spec"]["training"]["learningRate"]
    assert headrace.done("apply", "-f", "-", stdin=json.dumps(changed)) == "job/ours updated\n"
    now = there(kubectl, namespace, "ours")
    assert now["spec"]["priority"] == 7
    assert now["spec"]["training"]["learningRate"] != 1e-3, "what is left out has its default"
    assert now["metadata"]["generation"] == 2


def test_what_is_refused_is_told_by_line_and_nothing_is_written(
    headrace: CommandLine, kubectl: Command, namespace: str, queue: str
) -> None:
    # What only the API server knows: what it was before.
    assert headrace.done("apply", "-f", "-", stdin=yaml.safe_dump(a_job("a"))) == "job/a created\n"
    moved = a_job("a", checkpoint={"store": "/elsewhere"})
    text = yaml.safe_dump_all([a_queue(queue, quotaAccelerators=2), a_job("b"), moved])
    told = headrace("apply", "-f", "-", stdin=text)
    assert told.exit_code == ExitCode.REFUSED, told.output
    line = text[: text.index("/elsewhere")].count("\n")
    assert f"standard input:{line}: spec.checkpoint: Forbidden: cannot change" in told.stderr
    assert "nothing was applied" in told.stderr
    assert queue not in kubectl("get", "queues.headrace.dev", "-o", "name")
    names = kubectl("get", "trainingjobs", "-n", namespace, "-o", "name").split()
    assert names == ["trainingjob.headrace.dev/a"]
    relative = a_job("b", checkpoint={"store": "checkpoints"})
    told = headrace("apply", "-f", "-", stdin=yaml.safe_dump(relative))
    assert told.exit_code == ExitCode.REFUSED
    assert "'checkpoints' is a relative path" in told.stderr


def test_a_dry_run_asks_the_api_server_and_writes_nothing(
    headrace: CommandLine, kubectl: Command, namespace: str
) -> None:
    told = headrace.done("apply", "--dry-run", "-f", "-", stdin=yaml.safe_dump(a_job("a")))
    assert told == "job/a would be accepted (dry run)\n"
    assert kubectl("get", "trainingjobs", "-n", namespace, "-o", "name") == ""


def test_fields_of_others_are_taken_over_only_when_asked(
    headrace: CommandLine, kubectl: Command, namespace: str
) -> None:
    theirs = yaml.safe_dump(a_job("a", priority=1))
    kubectl(
        *("apply", "--server-side", "--field-manager=someone", "-n", namespace, "-f", "-"),
        stdin=theirs,
    )
    ours = yaml.safe_dump(a_job("a", priority=2))
    told = headrace("apply", "-f", "-", stdin=ours)
    assert told.exit_code == ExitCode.REFUSED
    assert "spec.priority: someone has set it to something else; change it there" in told.stderr
    assert there(kubectl, namespace, "a")["spec"]["priority"] == 1
    assert headrace.done("apply", "--force-conflicts", "-f", "-", stdin=ours) == "job/a updated\n"
    assert there(kubectl, namespace, "a")["spec"]["priority"] == 2
    # Together with someone who wants the same there is nothing to take over.
    assert headrace.done("suspend", "a") == "job/a suspended\n"


def test_jobs_rest_and_go_on_and_keep_what_was_applied(
    headrace: CommandLine, kubectl: Command, namespace: str
) -> None:
    text = yaml.safe_dump(a_job("a"))
    headrace.done("apply", "-f", "-", stdin=text)
    before = there(kubectl, namespace, "a")["spec"]
    assert headrace.done("suspend", "a") == "job/a suspended\n"
    assert headrace.done("suspend", f"{namespace}/a") == "job/a suspended already\n"
    assert there(kubectl, namespace, "a")["spec"] == {**before, "suspend": True}
    assert headrace.done("resume", "a", "-n", namespace) == "job/a resumed\n"
    assert there(kubectl, namespace, "a")["spec"] == before
    # Somebody's file says that it rests: that is for the file to change.
    resting = yaml.safe_dump(a_job("b", suspend=True))
    kubectl("apply", "--server-side", "-n", namespace, "-f", "-", stdin=resting)
    told = headrace("resume", "b")
    assert told.exit_code == ExitCode.REFUSED
    assert "spec.suspend (by kubectl)" in told.stderr
    assert headrace.done("resume", "b", "--force-conflicts") == "job/b resumed\n"
    told = headrace("resume", "b", "c")
    assert told.exit_code == ExitCode.NOT_FOUND
    assert f"no custom resource '{namespace}/c'" in told.stderr


def test_objects_are_deleted_by_name_and_by_manifest(
    headrace: CommandLine, kubectl: Command, namespace: str, queue: str
) -> None:
    text = yaml.safe_dump_all([a_queue(queue), a_job("a"), a_job("b")])
    headrace.done("apply", "-f", "-", stdin=text)
    assert "--purge" in headrace("delete", "a", "--purge").stderr
    assert headrace.done("delete", "a", "--wait") == "job/a deleted; its checkpoints stay\n"
    told = headrace("delete", "-f", "-", "--wait", "--timeout", "60", stdin=text)
    assert told.exit_code == ExitCode.NOT_FOUND
    assert told.stdout.splitlines() == [
        "job/b deleted; its checkpoints stay",
        f"queue/{queue} deleted",
    ]
    assert f"no custom resource '{namespace}/a'" in told.stderr
    assert kubectl("get", "trainingjobs", "-n", namespace, "-o", "name") == ""
    assert headrace("queue", "delete", queue).exit_code == ExitCode.NOT_FOUND


def test_queues_are_set_field_by_field(headrace: CommandLine, kubectl: Command, queue: str) -> None:
    def spec() -> Object:
        found: Object = json.loads(kubectl("get", "queues.headrace.dev", queue, "-o", "json"))
        return dict(found["spec"])

    words = ("queue", "set", queue)
    assert headrace.done(*words, "--quota", "4", "--submitter", "ann") == f"queue/{queue} created\n"
    assert headrace.done(*words, "--borrow", "2") == f"queue/{queue} changed\n"
    own = {"quotaAccelerators": 4, "borrowingAccelerators": 2, "submitters": ["ann"]}
    assert spec() == {**own, "namespaces": []}
    headrace.done(*words, "--quota", "-1", "--submitter", "*", "--from-namespace", "team-a")
    assert spec() == {"borrowingAccelerators": 2, "submitters": [], "namespaces": ["team-a"]}
    wrong = headrace(*words, "--from-namespace", "x", "--from-namespace", "x")
    assert wrong.exit_code == ExitCode.REFUSED
    assert "wanted every name once, got x more than once" in wrong.stderr
    # A quota that somebody's file sets is not gone because we set none.
    theirs = yaml.safe_dump(a_queue(queue, quotaAccelerators=9))
    kubectl("apply", "--server-side", "-f", "-", stdin=theirs)
    told = headrace(*words, "--quota", "-1")
    assert told.exit_code == ExitCode.REFUSED
    assert "spec.quotaAccelerators stays as it is: kubectl has set it too" in told.stderr
    assert headrace.done("queue", "delete", queue) == f"queue/{queue} deleted\n"


@pytest.fixture
def plane(home: Path) -> Iterator[FakeControlPlane]:
    """A control plane to read from."""
    fake = FakeControlPlane()
    write(home, Context(fake.address, local=True))
    yield fake
    fake.stop()


def test_a_policy_object_begins_with_what_is_in_force(
    headrace: CommandLine, kubectl: Command, plane: FakeControlPlane
) -> None:
    """One test, because a cluster has one policy."""

    def spec() -> Object:
        found: Object = json.loads(
            kubectl("get", "clusterpolicies.headrace.dev", "default", "-o", "json")
        )
        return dict(found["spec"])

    plane.settings["period_seconds"] = "7.0"
    before = dict(plane.settings)
    assert headrace.done("policy", "rollback", "1") == ""
    assert kubectl("get", "clusterpolicies.headrace.dev", "-o", "name") == "", "none is made"
    try:
        told = headrace.done("policy", "set", "policy=fifo", "rubick.cool_down_seconds=60")
        assert told.splitlines() == [
            "policy: default -> fifo",
            "rubick.cool_down_seconds: default -> 60",
        ]
        assert spec()["policy"] == "fifo"
        assert spec()["rubick"]["coolDownSeconds"] == 60
        assert spec()["periodSeconds"] == 7, "what was in force goes on"
        told = headrace.done("policy", "set", "rubick.cool_down_seconds=default")
        assert told == "rubick.cool_down_seconds: 60 -> default\n"
        assert "coolDownSeconds" not in spec().get("rubick", {})
        assert (spec()["policy"], spec()["periodSeconds"]) == ("fifo", 7)
        near = headrace("policy", "set", "rubick.cool_down_second=5")
        assert "did you mean rubick.cool_down_seconds?" in near.stderr
        wrong = headrace("policy", "set", "period_seconds=-1")
        assert wrong.exit_code == ExitCode.REFUSED
        assert "spec.periodSeconds: wanted at least 0.05" in wrong.stderr
        rolls_back(headrace, plane, spec)
        assert dict(plane.settings) == before, "it was written to Kubernetes alone"
    finally:
        kubectl("delete", "clusterpolicies.headrace.dev", "default", "--ignore-not-found")


def rolls_back(headrace: CommandLine, plane: FakeControlPlane, spec: Callable[[], Object]) -> None:
    """What the version had comes into the object, and what has its default leaves it."""
    change = admin_pb2.SettingChange
    plane.tried = admin_pb2.TryPolicyResponse(
        changes=[
            change(name="policy", before='"fifo"', after='"rubick"'),
            change(name="period_seconds", before="7.0", after="5.0"),
        ]
    )
    told = headrace.done("policy", "rollback", "3")
    assert told.splitlines() == ["policy: fifo -> rubick", "period_seconds: 7 -> default"]
    after = spec()
    assert after["policy"] == "rubick"
    assert "periodSeconds" not in after, "it follows its default"
    plane.tried = admin_pb2.TryPolicyResponse(refused="there is no policy 'sage' any more")
    refused = headrace("policy", "rollback", "2")
    assert refused.exit_code == ExitCode.REFUSED
    assert "there is no policy 'sage' any more" in refused.stderr
    plane.tried = admin_pb2.TryPolicyResponse()
    same = headrace("policy", "rollback", "4")
    assert (same.exit_code, same.stdout) == (ExitCode.OK, "")
    assert "the settings are those of version 4 already" in same.stderr
    assert spec() == after


def test_nobody_writes_to_kubernetes_who_did_not_ask(
    headrace: CommandLine,
    kubectl: Command,
    namespace: str,
    plane: FakeControlPlane,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(headrace.kubeconfig))
    text = yaml.safe_dump(a_job("a"))
    assert unpointed("apply", "-f", "-", stdin=text).stdout == "job/a created\n"
    assert set(plane.jobs)
    assert kubectl("get", "trainingjobs", "-n", namespace, "-o", "name") == ""
    forced = unpointed("apply", "--force-conflicts", "-f", "-", stdin=text)
    assert forced.exit_code == ExitCode.USAGE
    # Asked, it takes what kubectl would.
    assert unpointed("apply", "--kubernetes", "-f", "-", stdin=text).stdout == "job/a created\n"
    assert "/a" in kubectl("get", "trainingjobs", "-n", namespace, "-o", "name")


def test_who_cannot_write_is_told_why(
    headrace: CommandLine,
    api_server: ApiServer,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = yaml.safe_dump(a_job("a"))
    stranger = CommandLine(api_server.kubeconfig_of("ann"))
    told = stranger("apply", "-f", "-", stdin=text)
    assert told.exit_code == ExitCode.REFUSED
    assert 'User "ann" cannot patch resource "trainingjobs"' in told.stderr
    nowhere = CommandLine(tmp_path / "none")
    told = nowhere("suspend", "a")
    assert told.exit_code == ExitCode.UNREACHABLE
    assert f"{tmp_path / 'none'} does not say how to reach a cluster" in told.stderr
    silent = headrace.kubeconfig.read_text().replace(api_server.server, "https://127.0.0.1:9")
    (tmp_path / "silent").write_text(silent)
    told = CommandLine(tmp_path / "silent")("suspend", "a")
    assert told.exit_code == ExitCode.UNREACHABLE
    assert "does not answer" in told.stderr
    elsewhere = a_job("a")
    elsewhere["metadata"]["namespace"] = "no-such-namespace"
    told = headrace("apply", "-f", "-", stdin=yaml.safe_dump(elsewhere))
    assert told.exit_code == ExitCode.NOT_FOUND
    assert "there is no namespace 'no-such-namespace'" in told.stderr
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    told = headrace("suspend", "a")
    assert told.exit_code == ExitCode.FAILED
    assert "`pip install 'headrace[kubernetes]'` brings it" in told.stderr


def test_kinds_are_called_as_their_definitions_say() -> None:
    assert {each.kind: each.plural for each in (TRAINING_JOB, QUEUE, CLUSTER_POLICY)} == PLURALS
