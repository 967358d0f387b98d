"""The hand-shake with Kueue, from how all three sides are."""

from dataclasses import replace
from typing import Any

import pytest

from operators.kueue.handshake import Move, next_move
from operators.kueue.workload import (
    Workload,
    asked_by,
    finished,
    not_ready,
    ready,
    released,
    workload,
    workload_document,
)
from operators.trainingjob.reconcile import KnownJob
from operators.trainingjob.training_job import TrainingJob, canonical, training_job

GPU = "nvidia.com/gpu"
NOW = "2026-01-01T00:00:00Z"
HOLDS = canonical({"accelerators": 2, "conditions": [{"type": "Admitted", "status": "True"}]})
RESTS = canonical({"accelerators": 0, "conditions": [{"type": "Admitted", "status": "False"}]})
ENDED = canonical({"conditions": [{"type": "Succeeded", "status": "True"}]})
RUNNING = canonical({"accelerators": 2, "conditions": [{"type": "Running", "status": "True"}]})
CHANGES = RUNNING.replace("Running", "Reconfiguring")
A_JOB = KnownJob("u", "n", "train", 2, of_kubernetes=True, status_json=HOLDS, kueue_most=2)
RUNS = replace(A_JOB, status_json=RUNNING)


def an_object(*, suspend: bool = False, status_json: str = "{}", **wanted: Any) -> TrainingJob:
    made = training_job(
        {
            "metadata": {
                "namespace": "n",
                "name": "train",
                "uid": "u",
                "generation": 2,
                "resourceVersion": "7",
                "labels": {"kueue.x-k8s.io/queue-name": "team"},
            },
            "spec": {"suspend": suspend, "accelerators": wanted or {"minimum": 2}},
        }
    )
    return replace(made, status_json=status_json)


def its_workload(*true: str, count: int = 0, active: bool = True, **wanted: Any) -> Workload:
    """As Kueue leaves it, with these conditions true."""
    document = workload_document(an_object(**wanted), GPU, "v1beta2")
    document["metadata"] |= {"uid": "w", "resourceVersion": "9"}
    document["spec"]["active"] = active
    document["status"] = {
        "conditions": [{"type": each, "status": "True", "reason": each} for each in true],
        **({"admission": {"podSetAssignments": [{"count": count}]}} if count else {}),
    }
    return workload(document)


@pytest.mark.parametrize(
    ("found", "known", "mine", "move"),
    [
        # It is suspended before anything else, so that nothing starts before Kueue says so.
        (an_object(), None, None, Move.SUSPEND),
        (an_object(suspend=True), None, None, Move.CREATE),
        (an_object(suspend=True), None, its_workload(), Move.NOTHING),
        (an_object(suspend=True), None, its_workload("QuotaReserved", count=2), Move.NOTHING),
        (an_object(suspend=True), None, its_workload("Admitted", count=2), Move.RESUME),
        (an_object(), A_JOB, its_workload("Admitted", count=2), Move.NOTHING),
        # Where Kueue waits for pods it is told of ranks.
        (an_object(), RUNS, its_workload("Admitted", count=2), Move.READY),
        (an_object(), RUNS, its_workload("Admitted", "PodsReady", count=2), Move.NOTHING),
        (an_object(), A_JOB, its_workload("Admitted", "PodsReady", count=2), Move.NOT_READY),
        (
            an_object(),
            replace(A_JOB, status_json=CHANGES),
            its_workload("Admitted", "PodsReady", count=2),
            Move.NOTHING,
        ),
        # Evicted: it goes, and only then its quota is free.
        (an_object(), A_JOB, its_workload("Admitted", "Evicted", count=2), Move.SUSPEND),
        (an_object(suspend=True), A_JOB, its_workload("Evicted", count=2), Move.NOTHING),
        (
            an_object(suspend=True),
            replace(A_JOB, status_json=RESTS),
            its_workload("Admitted", "Evicted", count=2),
            Move.RELEASE,
        ),
        (
            an_object(suspend=True),
            replace(A_JOB, status_json=RESTS, generation=1),
            its_workload("Evicted", count=2),
            Move.NOTHING,
        ),
        (an_object(), A_JOB, its_workload("Admitted", count=2, active=False), Move.SUSPEND),
        # Admitted anew with fewer while nobody looked.
        (
            an_object(minimum=1, maximum=2),
            A_JOB,
            its_workload("Admitted", count=1, minimum=1, maximum=2),
            Move.SUSPEND,
        ),
        # Another size than was asked for.
        (an_object(minimum=4), A_JOB, its_workload("Admitted", count=2), Move.SUSPEND),
        (
            an_object(minimum=4, suspend=True),
            replace(A_JOB, status_json=RESTS),
            its_workload("Admitted", count=2),
            Move.DELETE,
        ),
        (
            an_object(minimum=4, suspend=True),
            A_JOB,
            its_workload("Admitted", count=2),
            Move.NOTHING,
        ),
        # Its Workload was deleted by hand.
        (an_object(), A_JOB, None, Move.SUSPEND),
        (an_object(status_json=ENDED), A_JOB, its_workload("Admitted", count=2), Move.FINISH),
        (an_object(status_json=ENDED), A_JOB, its_workload("Finished"), Move.NOTHING),
        (an_object(status_json=ENDED), A_JOB, None, Move.NOTHING),
    ],
)
def test_the_next_step_follows_from_how_things_are(
    found: TrainingJob, known: KnownJob | None, mine: Workload | None, move: Move
) -> None:
    assert next_move(found, known, mine, asked_by(found, GPU)) is move


def test_a_workload_asks_for_ranks_between_the_fewest_and_the_most() -> None:
    found = an_object(minimum=2, maximum=8, cpuCoresEach=4, selector={"zone": "a"})
    document = workload_document(found, GPU, "v1beta2")
    (ranks,) = document["spec"]["podSets"]
    (rank,) = ranks["template"]["spec"]["containers"]
    assert (ranks["count"], ranks["minCount"]) == (8, 2)
    assert rank["resources"]["requests"] == {GPU: "1", "cpu": "4"}
    assert ranks["template"]["spec"]["nodeSelector"] == {"zone": "a"}
    assert "minCount" not in workload_document(an_object(), GPU, "v1beta2")["spec"]["podSets"][0]
    slots = workload_document(an_object(minimum=1, type="cpu"), GPU, "v1beta2")
    (slot,) = slots["spec"]["podSets"][0]["template"]["spec"]["containers"]
    assert slot["resources"]["requests"] == {"cpu": "1"}


def test_the_workload_of_another_kind_is_none_of_ours() -> None:
    document = workload_document(an_object(), GPU, "v1beta2")
    document["metadata"] |= {"uid": "w", "resourceVersion": "9"}
    document["metadata"]["ownerReferences"][0]["kind"] = "Job"
    assert workload(document).owner_uid == ""


def test_names_of_workloads_are_short_and_differ() -> None:
    first = replace(an_object(), name="x" * 253, uid="1")
    names = {
        workload_document(each, GPU, "v1beta2")["metadata"]["name"]
        for each in (first, replace(first, uid="2"))
    }
    assert len(names) == 2
    assert all(len(name) <= 63 for name in names)


def test_what_was_evicted_says_so_once_it_rests() -> None:
    mine = its_workload("QuotaReserved", "Admitted", "Evicted", count=2)
    status = released(mine, NOW)
    assert status["admission"] is None
    found = {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}
    assert found == {
        "Evicted": ("True", "Evicted"),
        "Requeued": ("False", "Evicted"),
        "QuotaReserved": ("False", "Pending"),
        "Admitted": ("False", "NoReservation"),
    }
    preempted = mine.conditions_json.replace('"reason":"Evicted"', '"reason":"Preempted"')
    again = released(replace(mine, conditions_json=preempted), NOW)
    assert {each["type"]: each["status"] for each in again["conditions"]}["Requeued"] == "True"


def test_an_end_is_told_beside_what_kueue_has_said() -> None:
    status = finished(its_workload("Admitted", count=2), "Failed", "it ran out of retries", NOW)
    told = {each["type"]: (each["reason"], each["status"]) for each in status["conditions"]}
    assert told == {"Admitted": ("Admitted", "True"), "Finished": ("Failed", "True")}


def test_kueue_is_told_of_ranks_as_of_pods() -> None:
    def said(status: dict[str, Any]) -> tuple[str, str]:
        (found,) = [each for each in status["conditions"] if each["type"] == "PodsReady"]
        return found["status"], found["reason"]

    mine = its_workload("QuotaReserved", "Admitted", count=2)
    started = ready(mine, NOW)
    assert said(started) == ("True", "Started")
    assert {each["type"] for each in started["conditions"]} > {"QuotaReserved", "Admitted"}
    lost = not_ready(replace(mine, conditions_json=canonical(started["conditions"])), NOW)
    assert said(lost) == ("False", "WaitForRecovery")
    back = replace(mine, conditions_json=canonical(lost["conditions"]))
    assert said(ready(back, NOW)) == ("True", "Recovered")
    # After an eviction it begins anew.
    assert said(released(back, NOW)) == ("False", "WaitForStart")
