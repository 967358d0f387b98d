"""Which pods a job should have, and what is told of those that it has."""

import json
from dataclasses import replace
from typing import Any

import pytest

from operators.jobpods.pod import job_pod, readiness
from operators.jobpods.settings import PodSettings, read_pod_settings
from operators.jobpods.wanted import wanted_pods, wants_pods
from operators.trainingjob.notices import notices
from operators.trainingjob.reconcile import KnownJob
from operators.trainingjob.training_job import TrainingJob, training_job

SETTINGS = PodSettings(
    image="headrace/agent:1",
    uid=64000,
    shared_secrets=("everybodys",),
    tolerations=({"key": "nvidia.com/gpu", "operator": "Exists"},),
    runtime_class_name="nvidia",
)
CLAIM = {"name": "data", "mountPath": "/data", "persistentVolumeClaim": {"claimName": "disk"}}
GPUS = ("GPU-1", "GPU-2")


def secret(name: str, key: str = "word") -> dict[str, Any]:
    return {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


def an_object(**spec: Any) -> TrainingJob:
    metadata = {
        "namespace": "n",
        "name": "train",
        "uid": "u",
        "generation": 2,
        "resourceVersion": "7",
    }
    return training_job({"metadata": metadata, "spec": spec})


A_JOB = KnownJob(
    "u", "n", "train", 2, of_kubernetes=True, attempt_in_pods=3, places=(("a", GPUS), ("b", GPUS))
)


def pods(job: KnownJob | None = A_JOB, **spec: Any) -> dict[str, dict[str, Any]]:
    return wanted_pods(an_object(**spec), job, SETTINGS)


def container(**spec: Any) -> dict[str, Any]:
    pod = next(iter(pods(**spec).values()))
    return dict(pod["spec"]["containers"][0])


@pytest.mark.parametrize(
    ("spec", "wants"),
    [
        ({"command": {"program": ["x"], "image": "mine:1"}}, True),
        ({"command": {"program": ["x"]}}, False),
        ({"volumes": [CLAIM]}, True),
        ({"volumes": [{"name": "d", "mountPath": "/d", "hostPath": {"path": "/d"}}]}, False),
        ({"env": [secret("mine")]}, True),
        ({"env": [secret("everybodys")]}, False),
        ({"env": [{"name": "A", "value": "b"}]}, False),
    ],
)
def test_an_image_a_claim_or_a_secret_of_its_own_takes_pods(
    spec: dict[str, Any], wants: bool
) -> None:
    assert wants_pods(json.dumps({"spec": spec}), SETTINGS) is wants


def test_one_pod_for_each_node_of_an_attempt_under_a_name_that_stays() -> None:
    made = pods(volumes=[CLAIM])
    assert len(made) == 2
    assert made == pods(volumes=[CLAIM])
    assert not made.keys() & pods(replace(A_JOB, attempt_in_pods=4), volumes=[CLAIM]).keys()
    assert not pods(replace(A_JOB, attempt_in_pods=0))
    assert not pods(None)
    for name, pod in made.items():
        assert pod["metadata"]["name"] == name
        assert name.startswith("train-3-")
        (owner,) = pod["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("TrainingJob", "u", True)
    nodes = [
        term["matchFields"][0]["values"]
        for pod in made.values()
        for term in pod["spec"]["affinity"]["nodeAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]["nodeSelectorTerms"]
    ]
    assert nodes == [["a"], ["b"]]


def test_the_pod_asks_for_nothing_that_pod_security_calls_more_than_restricted() -> None:
    (pod, _) = pods(volumes=[CLAIM]).values()
    spec = pod["spec"]
    assert not {"hostPID", "hostNetwork", "hostIPC"} & spec.keys()
    assert not any("hostPath" in volume for volume in spec["volumes"])
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Never"
    security = spec["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"], security["runAsGroup"]) == (
        True,
        64000,
        64000,
    )
    assert spec["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert "limits" not in spec["containers"][0]["resources"], "GPUs are the Ray worker's"


def test_image_claims_and_secrets_are_the_jobs() -> None:
    spec: dict[str, Any] = {
        "command": {"program": ["x"], "image": "mine:1"},
        "volumes": [CLAIM],
        "env": [secret("login"), secret("login", "user"), secret("everybodys")],
    }
    assert container(**spec)["image"] == "mine:1"
    assert container(volumes=[CLAIM])["image"] == "headrace/agent:1"
    mounts = {each["mountPath"]: each for each in container(**spec)["volumeMounts"]}
    assert mounts["/data"]["readOnly"] is False
    assert mounts["/run/headrace/secrets/login"]["readOnly"]
    assert "/run/headrace/secrets/everybodys" in mounts, "of the job's namespace, as all of its"
    pod = next(iter(pods(**spec).values()))
    volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
    told = volumes[mounts["/run/headrace/secrets/login"]["name"]]["secret"]
    assert [each["key"] for each in told["items"]] == ["user", "word"]
    claim = volumes[mounts["/data"]["name"]]["persistentVolumeClaim"]
    assert claim == {"claimName": "disk", "readOnly": False}


def test_a_program_sees_its_gpus_and_ranks_that_come_and_go_see_all() -> None:
    def visible(job: KnownJob, **spec: Any) -> str:
        pod = next(iter(pods(job, **spec).values()))
        environment = {
            each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]
        }
        return str(environment["NVIDIA_VISIBLE_DEVICES"])

    assert visible(A_JOB, command={"program": ["x"]}) == "GPU-1,GPU-2"
    assert visible(A_JOB, model={"name": "gpt2"}) == "all"
    slots = replace(A_JOB, places=(("a", ("a-slot-0",)),))
    assert visible(slots, command={"program": ["x"]}) == "void"


def a_pod(name: str = "p", **status: Any) -> dict[str, Any]:
    labels = {"headrace.dev/job": "train", "headrace.dev/job-uid": "u"}
    metadata = {
        "namespace": "n",
        "name": name,
        "uid": "1",
        "resourceVersion": "5",
        "labels": labels,
    }
    return {"metadata": metadata, "status": status}


PULLING = {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}
RUNS: dict[str, Any] = {"containerStatuses": [{"state": {"running": {}}}]}
NO_IMAGE = {
    "containerStatuses": [
        {"state": {"waiting": {"reason": "ImagePullBackOff", "message": 'no such image "mine:1"'}}}
    ]
}
NO_PROGRAM = {
    "phase": "Failed",
    "containerStatuses": [
        {
            "state": {
                "terminated": {
                    "reason": "Error",
                    "exitCode": 1,
                    "message": "No module named agent\n",
                }
            }
        }
    ],
}
NO_CLAIM = {
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": 'persistentvolumeclaim "disk" not found',
        }
    ]
}


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({}, ""),
        (PULLING, ""),
        (RUNS, ""),
        (NO_IMAGE, 'ImagePullBackOff: no such image "mine:1"'),
        (NO_PROGRAM, "Error: its container ended with code 1: No module named agent"),
        (NO_CLAIM, 'Unschedulable: persistentvolumeclaim "disk" not found'),
        ({**NO_CLAIM, **RUNS}, ""),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "low on memory"},
            "Evicted: low on memory",
        ),
    ],
)
def test_why_a_pod_does_not_come_is_said_by_scheduler_or_kubelet(
    status: dict[str, Any], told: str
) -> None:
    assert job_pod(a_pod(**status)).trouble == told


def test_the_condition_says_how_it_is_with_all_pods_and_trouble_is_an_event() -> None:
    kept = {name: job_pod(a_pod(name, **RUNS)) for name in ("p", "q")}
    ready = readiness(["p", "q"], kept, 2)
    assert (ready["status"], ready["reason"]) == ("True", "PodsReady")
    coming = readiness(["p", "q"], {"p": kept["p"]}, 2)
    assert (coming["reason"], coming["message"]) == ("PodsStarting", "1 of 2 pods are up")
    kept["q"] = job_pod(a_pod("q", **NO_IMAGE))
    trouble = readiness(["p", "q"], kept, 2)
    assert (trouble["status"], trouble["reason"]) == ("False", "PodNotStarted")
    assert trouble["message"] == 'q: ImagePullBackOff: no such image "mine:1"'
    (told,) = notices({"conditions": [coming]}, {"conditions": [trouble]})
    assert (told.reason, told.warns, told.note) == ("PodNotStarted", True, trouble["message"])
    assert not notices({"conditions": [trouble]}, {"conditions": [trouble]})


def test_settings_are_read_and_what_is_wrong_is_said() -> None:
    read = read_pod_settings("{image: a, uid: 5, runtimeClassName: nvidia, sharedSecrets: [s]}")
    assert (read.image, read.uid, read.runtime_class_name) == ("a", 5, "nvidia")
    with pytest.raises(ValueError, match="nonsense: Extra inputs are not permitted"):
        read_pod_settings("{image: a, uid: 5, nonsense: 1}")
    with pytest.raises(ValueError, match="uid: Input should be greater than or equal to 1"):
        read_pod_settings("{image: a, uid: 0}")
    with pytest.raises(ValueError, match="wanted YAML"):
        read_pod_settings("{")
