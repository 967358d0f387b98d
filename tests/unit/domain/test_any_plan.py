"""Jobs that name no plans: among which a policy may choose, and what becomes of the others."""

from dataclasses import replace

from controlplane.domain.any_plan import plans_to_choose
from controlplane.domain.job import AcceleratorRequest, JobSpec
from controlplane.domain.lifecycle import Stage
from controlplane.domain.offering import offered, offered_to_choose, plans_of
from controlplane.domain.record import JobRecord
from headrace.api.feasible_plans import infeasible
from headrace.api.models import PRESETS
from headrace.api.plan import ExecutionPlan
from tests.builders import a_job

TYPE = "gpt2-small fp32 batch 16x128"
ASKED = AcceleratorRequest(1, 4)
ANY = replace(
    a_job("a").job.spec, accelerators=ASKED, global_batch_size=16, model_type=TYPE, any_plan=True
)


def record(spec: JobSpec, *out: str) -> JobRecord:
    lost = tuple(("gpu", ExecutionPlan.parse(plan)) for plan in out)
    job = replace(a_job("a").job, spec=spec)
    return JobRecord(job=job, stage=Stage.QUEUED, out_of_memory=lost)


def test_each_of_them_can_train_the_model_within_the_job_and_the_cluster() -> None:
    plans = plans_to_choose(ANY, 3)
    assert {plan.ranks for plan in plans} == {1, 2, 3, 4}
    assert {str(plan) for plan in plans} >= {"dp4", "dp2-z3", "tp2", "pp2.1f1b-ga8", "dp1-gc"}
    shape = PRESETS["gpt2-small"]
    assert not any(infeasible(shape, plan, global_batch_size=16) for plan in plans)
    assert len(set(plans)) == len(plans)


def test_micro_batches_are_no_larger_than_the_job_allows() -> None:
    for plan in plans_to_choose(replace(ANY, micro_batch_size_max=4), 4):
        assert 16 // (plan.data_parallel * plan.accumulation_steps) <= 4, plan


def test_a_job_that_names_its_plans_keeps_to_them() -> None:
    named = replace(ANY, plans=(ExecutionPlan(2),))
    assert plans_to_choose(named, 4) == plans_to_choose(replace(ANY, any_plan=False), 4) == ()
    assert offered_to_choose(record(named), 4).job.spec.plans == named.plans


def test_who_does_not_choose_runs_it_data_parallel() -> None:
    assert offered(record(ANY)).job.spec.plans == ()
    assert plans_of(ANY, 2) == (ExecutionPlan(2),)


def test_what_ran_out_of_memory_is_not_offered_again() -> None:
    left = offered_to_choose(record(ANY, "dp4", "tp2"), 4).job.spec.plans
    assert set(left) == set(plans_to_choose(ANY, 4)) - set(map(ExecutionPlan.parse, ("dp4", "tp2")))
    assert offered(record(ANY, "dp4")).job.spec.plans == (ExecutionPlan(1), ExecutionPlan(2))


def test_when_no_data_parallel_plan_is_left_there_are_the_others() -> None:
    left = offered(record(ANY, "dp1", "dp2", "dp4")).job.spec.plans
    assert ExecutionPlan.parse("dp4-z3") in left
    assert ExecutionPlan.parse("dp4") not in left


def test_equal_jobs_are_offered_the_very_same() -> None:
    assert offered_to_choose(record(ANY), 4).job.spec is offered_to_choose(record(ANY), 3).job.spec
