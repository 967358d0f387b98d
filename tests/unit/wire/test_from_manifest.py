"""Manifests become jobs, and a later manifest is compared with the earlier one."""

import json
from typing import Any

import pytest

from controlplane.domain.from_manifest import job_from_manifest
from controlplane.domain.ids import JobUid
from controlplane.domain.job import Job, Owner, ServiceClass, Topology
from controlplane.domain.memory import Memory
from controlplane.domain.model_type import type_named, type_text
from controlplane.domain.offering import memory_need
from controlplane.engine.new_specs import launch_part
from controlplane.engine.observations import model_of
from controlplane.wire.manifests import immutable_changes, only_differs_in, parse_manifest
from controlplane.wire.violations import InvalidMessageError
from headrace.api.manifest import canonical_json
from headrace.api.memory import estimated_peak_bytes
from headrace.api.model_choice import chosen_shape
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import Asked


def a_manifest(**spec: Any) -> str:
    return json.dumps(
        {
            "apiVersion": "headrace.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": "train", "namespace": "team"},
            "spec": {
                "model": {"name": "gpt2"},
                "data": {"source": "python-stdlib"},
                "training": {"globalBatchSize": 32, "steps": 500, "microBatchSizeMax": 4},
                "checkpoint": {"store": "/c"},
                **spec,
            },
        }
    )


def canonical(**spec: Any) -> str:
    job = job_from_manifest(parse_manifest(a_manifest(**spec)), uid=JobUid("u"))
    return job.spec.manifest_json


def test_every_field_that_deciding_needs_is_taken_over() -> None:
    text = a_manifest(
        queue="research",
        priority=7,
        serviceClass="Guaranteed",
        suspend=True,
        accelerators={
            "minimum": 2,
            "maximum": 8,
            "type": "cpu",
            "selector": {"zone": "b", "disk": "fast"},
            "topology": "SameNode",
            "tolerations": [{"key": "spot"}],
            "cpuCoresEach": 3,
            "hostMemoryBytesEach": "2Gi",
        },
        retries={"max": 1, "backoffSeconds": 2, "backoffMaxSeconds": 9},
        deadlineSeconds=100,
        maxRunSeconds=50,
        ttlSecondsAfterFinish=0,
    )
    job = job_from_manifest(
        parse_manifest(text),
        uid=JobUid("u"),
        generation=3,
        owner=Owner.KUBERNETES,
        submitter="alice",
    )
    spec, wanted = job.spec, job.spec.accelerators
    assert (job.uid, job.namespace, job.name, job.generation) == ("u", "team", "train", 3)
    assert (job.owner, job.submitter) == (Owner.KUBERNETES, "alice")
    assert (spec.queue, spec.priority, spec.suspend) == ("research", 7, True)
    assert spec.service_class is ServiceClass.GUARANTEED
    assert (wanted.minimum, wanted.maximum, wanted.type) == (2, 8, "cpu")
    assert wanted.selector == (("disk", "fast"), ("zone", "b"))
    assert wanted.topology is Topology.SAME_NODE
    assert [t.key for t in wanted.tolerations] == ["spot"]
    assert (wanted.cpu_cores_each, wanted.host_memory_bytes_each) == (3, 2 * 2**30)
    assert (spec.elastic, spec.global_batch_size, spec.micro_batch_size_max) == (True, 32, 4)
    assert spec.steps == 500
    assert (spec.max_retries, spec.backoff_seconds, spec.backoff_max_seconds) == (1, 2, 9)
    assert (spec.deadline_seconds, spec.max_run_seconds) == (100, 50)
    assert spec.ttl_seconds_after_finish == 0


def test_what_is_left_out_has_no_limit() -> None:
    spec = job_from_manifest(parse_manifest(a_manifest()), uid=JobUid("u")).spec
    assert (spec.accelerators.minimum, spec.accelerators.maximum) == (1, 1)
    assert (spec.deadline_seconds, spec.max_run_seconds) == (0, 0)
    assert spec.ttl_seconds_after_finish == -1


@pytest.mark.parametrize(
    ("change", "has_one"),
    [
        ({}, True),
        ({"ignoreMemoryEstimate": True}, False),
        ({"model": {"name": "gpt2", "weights": "/weights"}}, False),
    ],
)
def test_memory_is_estimated_where_the_sizes_are_known_and_it_is_wanted(
    change: dict[str, Any], has_one: bool
) -> None:
    plan = ExecutionPlan(1)
    data = {"source": "python-stdlib", "sequenceLength": 32}
    text = a_manifest(data=data, **change)
    spec = job_from_manifest(parse_manifest(text), uid=JobUid("u")).spec
    need = memory_need(spec, plan)
    if not has_one:
        assert need is None
        return
    shape = chosen_shape("gpt2", "tiny", {}, 32)
    peak = estimated_peak_bytes(shape, plan, spec.global_batch_size)
    assert need == Memory(peak.accelerator_bytes, peak.host_bytes)


def test_a_command_takes_one_unit_a_node_and_one_size() -> None:
    """``torchrun`` starts its own ranks: it must not be started once for each accelerator."""
    text = json.dumps(
        {
            **json.loads(a_manifest()),
            "spec": {
                "command": {"program": ["torchrun", "train.py"]},
                "accelerators": {"minimum": 4},
            },
        }
    )
    command = job_from_manifest(parse_manifest(text), uid=JobUid("u")).spec
    assert (command.unit_per_node, command.elastic) == (True, False)
    built_in = job_from_manifest(parse_manifest(a_manifest()), uid=JobUid("u")).spec
    assert (built_in.unit_per_node, built_in.elastic) == (False, True)


def test_a_script_takes_one_unit_an_accelerator_and_any_size() -> None:
    document = json.loads(a_manifest())
    spec = {
        "script": {"file": "/code/train.py"},
        "accelerators": {"minimum": 1, "maximum": 4},
        "training": {"globalBatchSize": 8, "steps": 30},
        "checkpoint": {"store": "/c"},
        "plans": ["dp4-z3", "dp1"],
    }
    text = json.dumps({**document, "spec": spec})
    script = job_from_manifest(parse_manifest(text), uid=JobUid("u")).spec
    assert (script.unit_per_node, script.elastic) == (False, True)
    assert (script.global_batch_size, script.steps) == (8, 30)
    assert [str(plan) for plan in script.plans] == ["dp4-z3", "dp1"]
    other = json.dumps({**document, "spec": {**spec, "script": {"file": "/code/other.py"}}})
    before, after = (canonical_json(parse_manifest(each)) for each in (text, other))
    (refused,) = immutable_changes(before, after)
    assert "another script is another job" in refused.problem
    assert launch_part(before) != launch_part(after)


def test_two_spellings_of_one_wish_are_the_same_text() -> None:
    assert canonical() == canonical(priority=0, env=[], suspend=False)
    assert canonical() != canonical(priority=1)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": {"name": "gpt2", "preset": "small"}}, "spec.model"),
        ({"data": {"source": "/text"}}, "spec.data"),
        (
            {"training": {"globalBatchSize": 64, "steps": 500}},
            "spec.training.globalBatchSize",
        ),
        (
            {"training": {"globalBatchSize": 32, "steps": 500, "seed": 1}},
            "spec.training.seed",
        ),
        ({"checkpoint": {"store": "/d"}}, "spec.checkpoint.store"),
    ],
)
def test_a_field_for_life_is_named_when_it_changes(change: dict[str, Any], field: str) -> None:
    found = immutable_changes(canonical(), canonical(**change))
    assert [violation.field for violation in found] == [field]
    assert "cannot change from" in found[0].problem


def test_other_fields_may_change() -> None:
    changed = canonical(
        priority=3,
        accelerators={"minimum": 1, "maximum": 4},
        training={"globalBatchSize": 32, "steps": 900, "learningRate": 0.1},
        checkpoint={"store": "/c", "everySteps": 5},
    )
    assert immutable_changes(canonical(), changed) == []


def test_a_finished_job_may_change_only_what_comes_after() -> None:
    after = frozenset({"ttlSecondsAfterFinish"})
    assert only_differs_in(canonical(), canonical(ttlSecondsAfterFinish=5), after)
    assert not only_differs_in(canonical(), canonical(priority=5), after)


def test_text_that_is_no_json_is_told_so() -> None:
    with pytest.raises(InvalidMessageError, match="manifest_json: wanted a manifest in JSON"):
        parse_manifest("{")


def test_what_jobs_tell_in_passing_is_found_under_the_type_of_those_that_train_the_same() -> None:
    data = {"source": "python-stdlib", "sequenceLength": 32}
    config = {"numHiddenLayers": 3, "tieWordEmbeddings": False}
    spec = a_job(model={"name": "gpt2", "config": config}, data=data).spec
    told = Asked(model_of(spec.manifest_json), 2, 32, 32, "fp32")
    assert spec.model_type == type_text(told)
    known = type_named(spec.model_type)
    assert known is not None
    assert (known.shape, known.samples) == (chosen_shape("gpt2", "tiny", config, 32), 32)
    assert type_named(a_job().spec.model_type) != known


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"name": "gpt2", "weights": "/w"}},
        {"model": None, "data": None, "script": {"file": "/train.py"}},
        {"model": None, "data": None, "training": None, "checkpoint": None}
        | {"command": {"program": ["torchrun"]}},
    ],
)
def test_what_only_its_author_knows_shares_nothing_and_runs_under_no_plan_but_its_own(
    spec: dict[str, Any],
) -> None:
    found = a_job(**spec).spec
    assert (found.model_type, found.any_plan) == ("", False)


def test_a_built_in_model_may_run_under_any_plan_unless_its_manifest_names_some() -> None:
    assert a_job().spec.any_plan
    assert not a_job(plans=["dp1-ga8"]).spec.any_plan


def a_job(**spec: Any) -> Job:
    return job_from_manifest(parse_manifest(a_manifest(**spec)), uid=JobUid("u"))
