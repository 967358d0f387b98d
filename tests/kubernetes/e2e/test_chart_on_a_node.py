"""The chart's own pods run: they speak to each other by mutual TLS, train, and are upgraded."""

from pathlib import Path

import pytest

from tests.kubernetes.e2e.release import NAMESPACE, NEXT, Release, condition, step
from tests.kubernetes.waiting import until

pytestmark = [pytest.mark.process, pytest.mark.timeout(1800)]

STEPS = 300
LONG = 1_000_000


def test_helms_own_test_passes(release: Release) -> None:
    assert "Phase:          Succeeded" in release.api_server.helm(
        "test", "headrace", "-n", NAMESPACE
    )
    restarts = {
        pod["metadata"]["name"]: status["restartCount"]
        for pod in release.pods()
        for status in pod["status"]["containerStatuses"]
        if status["restartCount"]
    }
    assert restarts == {}


def test_a_job_trains_and_its_object_and_the_command_line_say_so(
    release: Release, tmp_path: Path
) -> None:
    release.apply("short", STEPS)
    release.wait_status("short", "succeeds", lambda told: condition(told, "Succeeded") == "True")
    told = release.status("short")
    assert (step(told), told["attempt"]) == (STEPS, 1)
    kubectl = release.api_server.kubectl
    (line,) = kubectl("get", "hrjob", "short", "--no-headers").splitlines()
    assert f"{STEPS}/{STEPS}" in line
    assert "Succeeded" in line
    with release.command_line(tmp_path) as headrace:
        assert "headrace-node" in headrace("get", "nodes")
        uid = kubectl("get", "hrjob", "short", "-o", "jsonpath={.metadata.uid}")
        assert uid in headrace("describe", "job", "short")
        assert "loss" in headrace("logs", uid)
    kubectl("delete", "hrjob", "short", "--timeout=100s")


def test_an_upgrade_under_a_running_job_loses_no_step(release: Release) -> None:
    release.apply("long", LONG)
    release.wait_status("long", "makes steps", lambda told: step(told) > 0)
    before, at = release.uids(), step(release.status("long"))
    release.helm("upgrade", "--set", f"image.tag={NEXT}")
    after = release.uids()
    replaced = {component for component in before if not before[component] & after[component]}
    assert replaced == {"control-plane", "operator", "certificates", "agent"}
    # Told by the new agent through the new control plane and operator.
    release.wait_status("long", "goes on", lambda told: step(told) > at + 50)
    told = release.status("long")
    assert (told["attempt"], told["failures"]) == (1, 0)
    release.api_server.kubectl("delete", "hrjob", "long", "--timeout=100s")
    release.helm("upgrade")


def test_what_stays_when_the_release_goes_is_there_when_it_comes_again(release: Release) -> None:
    kubectl = release.api_server.kubectl
    release.apply("kept", 20)
    release.wait_status("kept", "succeeds", lambda told: condition(told, "Succeeded") == "True")
    release.api_server.helm("uninstall", "headrace", "-n", NAMESPACE)
    until("every pod is gone", lambda: not release.pods())
    left = kubectl("get", "deployments,statefulsets,daemonsets", "-n", NAMESPACE, "-o", "name")
    assert left == ""
    assert "kept" in kubectl("get", "hrjob", "-o", "name")
    claims = kubectl("get", "pvc", "-n", NAMESPACE, "-o", "name")
    assert "persistentvolumeclaim/headrace-control-plane" in claims
    secrets = kubectl(
        *("get", "secrets", "-n", NAMESPACE, "-o", "name"),
        *("-l", "app.kubernetes.io/managed-by=headrace-certificates"),
    )
    assert "secret/headrace-authority" in secrets
    assert "secret/headrace-ray-token" in secrets
    release.helm("install", "--take-ownership")
    assert condition(release.status("kept"), "Succeeded") == "True"
    kubectl("delete", "hrjob", "kept", "--timeout=100s")
