"""What to do next, from how both sides are."""

from dataclasses import replace
from typing import Any

import pytest

from operators.trainingjob.reconcile import KnownJob, Step, next_step
from operators.trainingjob.training_job import FINALIZER, TrainingJob, canonical, training_job


def an_object(**changes: Any) -> TrainingJob:
    made = training_job(
        {
            "metadata": {
                "namespace": "n",
                "name": "train",
                "uid": "u",
                "generation": 2,
                "resourceVersion": "7",
                "finalizers": [FINALIZER, "other"],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            },
            "spec": {"queue": "q"},
        }
    )
    return replace(made, **changes)


A_JOB = KnownJob("u", "n", "train", 2, of_kubernetes=True)


def going(**changes: Any) -> TrainingJob:
    return an_object(is_going=True, **changes)


def ended() -> str:
    return canonical({"conditions": [{"type": "Failed", "status": "True"}]})


@pytest.mark.parametrize(
    ("found", "job", "step"),
    [
        (an_object(finalizers=()), None, Step.PUT_FINALIZER),
        (an_object(), None, Step.SUBMIT),
        (an_object(), replace(A_JOB, generation=1), Step.SUBMIT),
        (an_object(), A_JOB, Step.NOTHING),
        (an_object(is_ours=False, finalizers=()), None, Step.NOTHING),
        (going(), A_JOB, Step.WITHDRAW),
        (going(), replace(A_JOB, withdrawn=True), Step.NOTHING),
        (going(), None, Step.MAKE_SURE_IT_IS_FORGOTTEN),
        (going(finalizers=()), None, Step.NOTHING),
        (going(is_abandoned=True), A_JOB, Step.LET_GO),
        (None, A_JOB, Step.WITHDRAW_IF_OBJECT_IS_GONE),
        (None, replace(A_JOB, withdrawn=True), Step.NOTHING),
        (None, replace(A_JOB, of_kubernetes=False), Step.NOTHING),
    ],
)
def test_the_next_step(found: TrainingJob | None, job: KnownJob | None, step: Step) -> None:
    assert next_step(found, job, knows_all_jobs=True) is step


def test_before_all_jobs_are_told_only_what_is_abandoned_goes() -> None:
    for found in (an_object(), an_object(finalizers=()), going()):
        assert next_step(found, None, knows_all_jobs=False) is Step.NOTHING
    assert next_step(going(is_abandoned=True), None, knows_all_jobs=False) is Step.LET_GO


def test_a_generation_that_was_refused_waits_for_the_next_one() -> None:
    refused = next_step(an_object(), None, knows_all_jobs=True, refused_generation=2)
    assert refused is Step.NOTHING
    edited = an_object(generation=3)
    assert next_step(edited, None, knows_all_jobs=True, refused_generation=2) is Step.SUBMIT


def test_what_has_ended_is_not_submitted_to_a_store_that_forgot_it() -> None:
    found = an_object(status_json=ended())
    assert next_step(found, None, knows_all_jobs=True) is Step.NOTHING


def test_the_control_plane_is_told_the_spec_and_nothing_of_other_tools() -> None:
    assert "kubectl" not in an_object().manifest_json
    assert '"spec":{"queue":"q"}' in an_object().manifest_json


def test_numbers_are_spelt_as_the_api_server_does() -> None:
    assert canonical({"a": 2.0, "b": 0.5, "c": float("nan"), "d": None}) == '{"a":2,"b":0.5}'
