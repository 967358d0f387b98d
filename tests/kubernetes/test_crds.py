"""The custom resources as people meet them: applied, shown, explained and changed with kubectl."""

import json
import uuid
from typing import Any

import pytest
import yaml

from operators.crds.__main__ import DEFINITIONS
from tests.architecture.source_tree import ROOT
from tests.kubernetes.api_server import CommandFailedError
from tests.kubernetes.crd_cases import GPT, QUEUE, changed, drop, put
from tests.kubernetes.fixtures import Command

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("custom_resources")]

EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
MANIFESTS = [
    path for path in EXAMPLES if "apiVersion: headrace.dev" in path.read_text(encoding="utf-8")
]
STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "plan": "dp2-tp2-z2",
    "accelerators": 4,
    "reconfigurations": 3,
    "progress": {"step": 120, "stepsTotal": 600, "stepSeconds": 0.4546},
    "columns": {"progress": "120/600 20%", "eta": "2026-11-27 18:42Z", "throughput": "35.2/s"},
    "conditions": [
        {
            "type": "Running",
            "status": "True",
            "reason": "RunningAsPlanned",
            "message": "",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-11-27T18:00:00Z",
        },
        {
            "type": "Succeeded",
            "status": "False",
            "reason": "RunningAsPlanned",
            "message": "4 on node-a, the fastest of 6 places",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-11-27T18:00:00Z",
        },
    ],
}


def a_job(kubectl: Command, namespace: str, document: dict[str, Any] = GPT) -> dict[str, Any]:
    """The job as the API server has it."""
    text = kubectl(
        *("apply", "--server-side", "-n", namespace, "-o", "json", "-f", "-"),
        stdin=json.dumps(document),
    )
    return dict(json.loads(text))


def write_status(kubectl: Command, namespace: str, status: dict[str, Any]) -> None:
    """As an operator does: server-side, on the subresource."""
    document = {**{key: GPT[key] for key in ("apiVersion", "kind", "metadata")}, "status": status}
    kubectl(
        *("apply", "--server-side", "--subresource=status", "--field-manager=headrace-test"),
        *("-n", namespace, "-f", "-"),
        stdin=json.dumps(document),
    )


def test_all_are_established(kubectl: Command) -> None:
    for definition in DEFINITIONS:
        found = json.loads(kubectl("get", "crd", definition.name, "-o", "json"))
        states = {each["type"]: each["status"] for each in found["status"]["conditions"]}
        assert states["Established"] == states["NamesAccepted"] == "True"
        # Set where a schema is not structural.
        assert states.get("NonStructuralSchema", "False") == "False"
    words = kubectl("api-resources", "--categories=headrace", "-o", "name").split()
    assert {definition.name for definition in DEFINITIONS} <= set(words)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_example_is_taken_as_it_is(kubectl: Command, namespace: str, path: Any) -> None:
    kinds = [each["kind"] for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    # Objects of the whole cluster are other tests' too.
    trial = ["-n", namespace] if set(kinds) == {"TrainingJob"} else ["--dry-run=server"]
    kubectl("apply", "--server-side", *trial, "-f", str(path))


def test_there_are_examples_of_every_kind() -> None:
    kinds = {
        each["kind"]
        for path in MANIFESTS
        for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    }
    assert kinds == {definition.kind for definition in DEFINITIONS}


def test_defaults_are_filled_in(kubectl: Command, namespace: str) -> None:
    spec = a_job(kubectl, namespace, changed(GPT, drop("spec.accelerators")))["spec"]
    assert (spec["queue"], spec["suspend"], spec["priority"]) == ("default", False, 0)
    assert spec["retries"] == {
        "max": 3,
        "backoffSeconds": 5,
        "backoffMaxSeconds": 300,
        "stallSeconds": 120,
    }
    assert spec["accelerators"]["minimum"] == 1
    assert "maximum" not in spec["accelerators"]
    assert (spec["checkpoint"]["keep"], spec["training"]["precision"]) == (3, "fp32")


def test_what_is_given_of_a_part_is_completed(kubectl: Command, namespace: str) -> None:
    document = changed(GPT, put("spec.retries", {"max": 7}))
    retries = a_job(kubectl, namespace, document)["spec"]["retries"]
    assert (retries["max"], retries["backoffSeconds"]) == (7, 5)


def test_an_unknown_field_is_refused(kubectl: Command, namespace: str) -> None:
    with pytest.raises(CommandFailedError, match="unknown field"):
        kubectl(
            *("create", "--validate=strict", "-n", namespace, "-f", "-"),
            stdin=json.dumps(changed(GPT, put("spec.acelerators", {}))),
        )


def test_an_unknown_field_is_pruned_where_nobody_asks(kubectl: Command, namespace: str) -> None:
    kubectl(
        *("create", "--validate=ignore", "-n", namespace, "-f", "-"),
        stdin=json.dumps(changed(GPT, put("spec.phase", "Running"))),
    )
    job = json.loads(kubectl("get", "hrjob", "job", "-n", namespace, "-o", "json"))
    assert "phase" not in job["spec"]


def test_the_status_is_written_apart(kubectl: Command, namespace: str) -> None:
    given = a_job(kubectl, namespace, {**GPT, "status": {"plan": "dp9"}})
    assert "status" not in given
    write_status(kubectl, namespace, STATUS)
    told = json.loads(kubectl("get", "hrjob", "job", "-n", namespace, "-o", "json"))
    assert told["status"]["plan"] == "dp2-tp2-z2"
    assert told["metadata"]["generation"] == 1
    assert len(told["status"]["conditions"]) == 2


@pytest.mark.parametrize("field", ["reason", "message", "observedGeneration", "lastTransitionTime"])
def test_a_condition_has_all_six_fields(kubectl: Command, namespace: str, field: str) -> None:
    a_job(kubectl, namespace)
    condition = {key: value for key, value in STATUS["conditions"][0].items() if key != field}
    with pytest.raises(CommandFailedError, match=field):
        write_status(kubectl, namespace, {"conditions": [condition]})


def test_kubectl_get_shows_how_a_job_is(kubectl: Command, namespace: str) -> None:
    a_job(kubectl, namespace, changed(GPT, put("spec.queue", "research")))
    write_status(kubectl, namespace, STATUS)
    heading, row = kubectl("get", "hrjob", "-n", namespace).splitlines()
    assert heading.split() == [
        *("NAME", "QUEUE", "PLAN", "GPUS", "PROGRESS", "ETA", "STATE", "AGE"),
    ]
    shown = "job research dp2-tp2-z2 4 120/600 20% 2026-11-27 18:42Z RunningAsPlanned"
    assert row.split()[:-1] == shown.split()
    heading, row = kubectl("get", "trainingjobs", "-n", namespace, "-o", "wide").splitlines()
    assert heading.split()[7:] == ["THROUGHPUT", "RECONFIGS", "REASON", "AGE"]
    assert " ".join(row.split()[8:-1]) == (
        "RunningAsPlanned 35.2/s 3 4 on node-a, the fastest of 6 places"
    )


def test_a_queue_is_shown(kubectl: Command) -> None:
    name = f"queue-{uuid.uuid4().hex[:8]}"
    kubectl(
        *("apply", "--server-side", "-f", "-"),
        stdin=json.dumps(changed(QUEUE, put("metadata.name", name))),
    )
    heading, row = kubectl("get", "hrqueue", name).splitlines()
    kubectl("delete", "hrqueue", name)
    assert heading.split() == [
        *("NAME", "QUOTA", "BORROWS", "HELD", "RUNNING", "WAITING", "NAMESPACES", "READY", "AGE")
    ]
    assert row.split()[:4] == [name, "4", "0", '["team-a"]']


def test_a_job_has_no_single_number_to_scale(kubectl: Command, namespace: str) -> None:
    """It has a fewest and a most, and what it gets between them is the policy's decision."""
    a_job(kubectl, namespace)
    with pytest.raises(CommandFailedError, match="NotFound"):
        kubectl("scale", "hrjob", "job", "--replicas=2", "-n", namespace)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("trainingjob", "What the job asks for"),
        ("trainingjob.spec.plans", "Execution plans that the job may run under, the best of each"),
        ("trainingjob.spec.accelerators.topology", "ENUM: Any SameRack SameNode"),
        ("trainingjob.status.conditions.reason", "one word from the closed set of reasons"),
        ("queue.spec.quotaAccelerators", "Accelerators that are its own"),
        ("clusterpolicy.spec.rubick.coolDownSeconds", "before they have trained. Default: 30."),
    ],
)
def test_kubectl_explain_reads_like_documentation(kubectl: Command, path: str, words: str) -> None:
    told = kubectl("explain", "--api-version=headrace.dev/v1alpha1", path)
    assert words in " ".join(told.split())
