"""Workloads: what is read from traces, what is drawn, and how wrong files are told."""

import os
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controlplane.domain.job import ServiceClass
from controlplane.domain.queue import Queue
from headrace.api.plan import ExecutionPlan
from simulator.measured_table import read_table
from simulator.study import Study, scenario_for
from simulator.workloads.drawing import Drawing
from simulator.workloads.philly import Window, read_philly
from simulator.workloads.rubick import read_rubick
from simulator.workloads.sia import read_sia
from simulator.workloads.synthetic import Synthetic, generate
from simulator.workloads.trace_jobs import (
    BEST_EFFORT_QUEUE,
    GUARANTEED_QUEUE,
    Cluster,
    TraceJob,
    at_load,
    gaps,
    scenario_of,
    with_guaranteed,
)
from tests.simulation.small_table import SMALL_TABLE

RUBICK_HEAD = (
    "name,submission_time,duration,application,num_gpus,num_cpus,bandwidth,exec_plan,steps,is_sla\n"
)
PHILLY_HEAD = "timestamp,duration,num_gpus,gpu_time,cluster\n"
SIA_HEAD = "name,time,application,num_replicas,batch_size\n"
START = datetime(2017, 10, 2, tzinfo=UTC)


def written(folder: Path, text: str) -> Path:
    file = folder / "trace.csv"
    file.write_text(text)
    return file


def drawing(seed: int = 1, *, random_plans: bool = True) -> Drawing:
    return Drawing(SMALL_TABLE, seed, 16, random_plans)


# -- Rubick's files ---------------------------------------------------------------------------


def test_a_job_of_rubick_asks_for_its_number_and_plan_and_may_run_under_all(tmp_path: Path) -> None:
    file = written(tmp_path, f"{RUBICK_HEAD}bert-0,12,90.5,bert,4,32,0,zero-dp,300,1\n")
    (job,) = read_rubick(file, SMALL_TABLE)
    assert job == TraceJob(
        "bert-0", 12.0, "bert", 4, ExecutionPlan.parse("dp4-z2"), 300, 90.5, guaranteed=True
    )
    scenario = scenario_of([job], SMALL_TABLE)
    spec = scenario.arrivals[0].job.spec
    assert spec.accelerators.asked_for == 4
    assert (spec.accelerators.minimum, spec.accelerators.maximum) == (1, 64)
    assert spec.requested_plan == ExecutionPlan.parse("dp4-z2")
    assert spec.plans == SMALL_TABLE.plans("bert")
    assert (spec.model_type, spec.global_batch_size, spec.steps) == ("bert", 32, 300)
    assert spec.service_class is ServiceClass.GUARANTEED


WRONG_RUBICK = [
    ("name,steps\n", ":1: wanted name,submission_time,duration"),
    ("", f":1: wanted {RUBICK_HEAD.strip()}; the file is empty"),
    (RUBICK_HEAD.replace(",steps", ""), f":1: wanted {RUBICK_HEAD.strip()}; steps missing"),
    (
        RUBICK_HEAD.replace(",steps", ",colour"),
        f":1: wanted {RUBICK_HEAD.strip()}; steps missing and 'colour' not known",
    ),
    (
        RUBICK_HEAD.replace("name,", "name,name,"),
        f":1: wanted {RUBICK_HEAD.strip()}; they come in another order, or twice",
    ),
    (RUBICK_HEAD, ": wanted jobs below"),
    (f"{RUBICK_HEAD}a,0,1,bert,4,1,0,ga,10", ":2: wanted 10 cells, got 9"),
    (f"{RUBICK_HEAD}a,0,1,resnet,4,1,0,ga,10,0", ":2: application: wanted a measured model"),
    (f"{RUBICK_HEAD}a,0,1,bert,3,1,0,ga,10,0", ":2: exec_plan: a batch of 32 does not divide"),
    (
        f"{RUBICK_HEAD}a,0,1,bert,16,1,0,ga,10,0",
        ":2: exec_plan: bert was not measured under ga on 16 accelerators; it was on 1, 2, 4, 8",
    ),
    (f"{RUBICK_HEAD}a,0,1,bert,4,1,0,fast,10,0", ":2: exec_plan: wanted ga, gc"),
    (f"{RUBICK_HEAD}a,0,1,bert,0,1,0,ga,10,0", ":2: num_gpus: wanted a number from 1"),
    (f"{RUBICK_HEAD}a,0,1,bert,1.5,1,0,ga,10,0", ":2: num_gpus: wanted a whole number"),
    (f"{RUBICK_HEAD}a,-1,1,bert,4,1,0,ga,10,0", ":2: submission_time: wanted a number from 0"),
    (f"{RUBICK_HEAD}a,0,1,bert,4,1,0,ga,0,0", ":2: steps: wanted a number from 1"),
    (f"{RUBICK_HEAD}a,0,1,bert,4,1,0,ga,10,yes", ":2: is_sla: wanted 0 or 1, got 'yes'"),
    (f"{RUBICK_HEAD},0,1,bert,4,1,0,ga,10,0", ":2: name: wanted one"),
    (
        f"{RUBICK_HEAD}a,0,1,bert,4,1,0,ga,10,0\na,5,1,bert,4,1,0,ga,10,0",
        ":3: name: a stands in line 2 already",
    ),
]


@pytest.mark.parametrize(("text", "told"), WRONG_RUBICK)
def test_a_wrong_file_of_rubick_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{file}{told}')}"):
        read_rubick(file, SMALL_TABLE)


# -- Philly -----------------------------------------------------------------------------------

PHILLY = (
    f"{PHILLY_HEAD}2017-10-02 05:00:00,3600.0,3,10800.0,c\n"
    "2017-10-02 01:00:00,600.0,1,600.0,c\n2017-10-03 01:00:00,7200.0,8,57600.0,c\n\n"
)


def test_a_window_of_philly_keeps_gpu_hours_and_order(tmp_path: Path) -> None:
    file = written(tmp_path, PHILLY)
    early, late = read_philly(file, Window(START, 24.0), drawing())
    assert (early.at_seconds, late.at_seconds) == (3600.0, 5 * 3600.0)
    assert late.accelerators in (2, 4)  # nearest to 3 that a model has
    for job, hours in ((early, 1 / 6), (late, 3.0)):
        way = min(
            way.seconds for way in SMALL_TABLE.every_way(job.model_type) if way.plan == job.plan
        )
        assert job.recorded_seconds * job.accelerators / 3600 == pytest.approx(hours, rel=0.01)
        assert job.steps * way == pytest.approx(job.recorded_seconds)


def test_a_window_longer_than_the_trace_repeats_it_after_whole_weeks(tmp_path: Path) -> None:
    jobs = read_philly(written(tmp_path, PHILLY), Window(START, 14 * 24.0), drawing())
    assert len(jobs) == len({job.name for job in jobs}) == 6
    week = 7 * 24 * 3600.0
    assert [job.at_seconds for job in jobs[3:]] == [job.at_seconds + week for job in jobs[:3]]


def test_a_sample_of_philly_depends_on_the_seed_alone(tmp_path: Path) -> None:
    file = written(tmp_path, PHILLY)
    window = Window(START, 14 * 24.0, jobs=3)
    assert read_philly(file, window, drawing(1)) == read_philly(file, window, drawing(1))
    samples = {
        tuple(job.name for job in read_philly(file, window, drawing(seed))) for seed in range(8)
    }
    assert len(samples) > 1
    assert all(len(sample) == 3 for sample in samples)


def test_a_job_that_ran_too_long_can_be_left_out(tmp_path: Path) -> None:
    jobs = read_philly(written(tmp_path, PHILLY), Window(START, 48.0, longest_hours=1.5), drawing())
    assert len(jobs) == 2


WRONG_PHILLY = [
    (f"{PHILLY_HEAD}yesterday,1,1,1,c", ":2: timestamp: wanted one like 2017-10-09 07:01:55"),
    (f"{PHILLY_HEAD}2017-10-02 05:00:00,long,1,1,c", ":2: duration: wanted a number from 0"),
    (f"{PHILLY_HEAD}2017-10-02 05:00:00,1,0,1,c", ":2: num_gpus: wanted a number from 1"),
    (PHILLY_HEAD, ": wanted jobs below timestamp,duration"),
    (PHILLY, ": wanted 9 jobs from 2017-10-02 00:00 UTC for 24 h, there are 2"),
]


@pytest.mark.parametrize(("text", "told"), WRONG_PHILLY)
def test_a_wrong_philly_trace_is_told(tmp_path: Path, text: str, told: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{file}{told}')}"):
        read_philly(file, Window(START, 24.0, jobs=9), drawing())


# -- Sia and synthetic jobs -------------------------------------------------------------------


def test_sias_applications_become_measured_models_by_their_size(tmp_path: Path) -> None:
    file = written(tmp_path, f"{SIA_HEAD}bert-0,10,bert,3,384\nimagenet-1,20,imagenet,12,200\n")
    small, large = read_sia(file, drawing())
    assert (small.model_type, large.model_type) == ("bert", "gpt2")
    assert (small.accelerators, large.accelerators) == (4, 16)
    for job, least, most in ((small, 1, 10), (large, 100, 1000)):
        assert least * 0.99 <= job.recorded_seconds * job.accelerators / 3600 <= most * 1.01


def test_a_wrong_workload_of_sia_is_told(tmp_path: Path) -> None:
    file = written(tmp_path, f"{SIA_HEAD}a,10,resnet,3,384\n")
    with pytest.raises(ValueError, match=r":2: application: wanted one of cifar10, ncf"):
        read_sia(file, drawing())
    file = written(tmp_path, f"{SIA_HEAD}a,10,bert,3,384\na,10,bert,3,384\n")
    with pytest.raises(ValueError, match="wanted every name once, 1 come again"):
        read_sia(file, drawing())


def test_synthetic_jobs_come_at_their_rate_and_run_as_long_as_said() -> None:
    described = Synthetic(2000, jobs_per_hour=120, median_seconds=600, mean_seconds=1800)
    jobs = generate(described, drawing())
    waits = gaps(jobs)
    assert sum(waits) / len(waits) == pytest.approx(30.0, rel=0.1)
    assert {job.model_type for job in jobs} == {"bert", "gpt2"}
    asked = Counter(job.accelerators for job in jobs)
    assert asked[1] > asked[4] > asked[16] > 0


@pytest.mark.parametrize(
    ("described", "told"),
    [
        (Synthetic(jobs=0), "at least one job"),
        (Synthetic(jobs_per_hour=0), "a rate above 0"),
        (Synthetic(median_seconds=10, mean_seconds=5), "no longer than the mean"),
    ],
)
def test_impossible_synthetic_jobs_are_refused(described: Synthetic, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        generate(described, drawing())


def test_the_fastest_plan_is_asked_for_where_plans_are_not_drawn() -> None:
    jobs = [drawing(random_plans=False).job(f"j{i}", 0.0, "bert", 4, 60.0) for i in range(20)]
    assert {str(job.plan) for job in jobs} == {"dp4-z2"}
    jobs = [drawing().job(f"j{i}", 0.0, "bert", 4, 60.0) for i in range(20)]
    assert {str(job.plan) for job in jobs} == {"dp4", "dp4-z2"}


# -- scenarios --------------------------------------------------------------------------------


def test_guaranteed_jobs_are_drawn_and_get_a_queue_with_quota() -> None:
    jobs = with_guaranteed(generate(Synthetic(20), drawing()), 8, seed=3)
    assert sum(job.guaranteed for job in jobs) == 8
    scenario = scenario_of(jobs, SMALL_TABLE)
    assert scenario.queues == (Queue(GUARANTEED_QUEUE, 64), Queue(BEST_EFFORT_QUEUE))
    for arrival in scenario.arrivals:
        own = arrival.job.spec.service_class is ServiceClass.GUARANTEED
        assert arrival.job.spec.queue == (GUARANTEED_QUEUE if own else BEST_EFFORT_QUEUE)
    with pytest.raises(ValueError, match="wanted 0 to 20 guaranteed jobs, got 21"):
        with_guaranteed(jobs, 21, seed=3)


def test_a_higher_load_brings_the_same_jobs_sooner() -> None:
    jobs = generate(Synthetic(5), drawing())
    twice = at_load(jobs, 2.0)
    assert [job.at_seconds * 2 for job in twice] == [job.at_seconds for job in jobs]


def test_a_job_that_no_cluster_could_hold_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "rubick" / "measured" / "bert"
    folder.mkdir(parents=True)
    head = "exec_plan,placement,iter_time,forward,overlap_sync,optimize\n"
    (folder / "placements.csv").write_text(f"{head}ga,8,0.2,1,1,1\nga,88,0.2,1,1,1\n")
    file = written(tmp_path, f"{RUBICK_HEAD}a,0,1,bert,16,1,0,ga,10,0\n")
    with pytest.raises(ValueError, match="a asks for 16 accelerators, 1 nodes have 8"):
        scenario_for(Study(str(file), tmp_path, Cluster(1)), seed=1)


def test_an_unknown_workload_is_told_with_those_there_are(tmp_path: Path) -> None:
    folder = tmp_path / "rubick" / "measured" / "bert"
    folder.mkdir(parents=True)
    head = "exec_plan,placement,iter_time,forward,overlap_sync,optimize\n"
    (folder / "placements.csv").write_text(f"{head}ga,8,0.2,1,1,1\n")
    with pytest.raises(ValueError, match="wanted a workload of base, bp, mt, philly"):
        scenario_for(Study("helios", tmp_path), seed=1)


@pytest.mark.skipif("HEADRACE_DATA" not in os.environ, reason="HEADRACE_DATA names no data folder")
@pytest.mark.parametrize("workload", ["base", "bp", "mt", "philly", "sia-philly-1", "synthetic"])
def test_every_workload_of_the_data_folder_asks_for_what_was_measured(workload: str) -> None:
    data = Path(os.environ["HEADRACE_DATA"])
    scenario, table = scenario_for(Study(workload, data, window=Window(jobs=50)), seed=1)
    expected = {"philly": 50, "sia-philly-1": 160, "synthetic": 400}.get(workload, 406)
    assert len(scenario.arrivals) == expected
    for arrival in scenario.arrivals:
        spec = arrival.job.spec
        plans = {way.plan for way in table.ways(spec, table.kind)}
        assert spec.requested_plan in plans


@pytest.mark.skipif("HEADRACE_DATA" not in os.environ, reason="HEADRACE_DATA names no data folder")
def test_rubicks_workload_holds_the_gpu_hours_that_are_known_of_it() -> None:
    folder = Path(os.environ["HEADRACE_DATA"]) / "rubick"
    table = read_table(folder / "measured")
    jobs = read_rubick(folder / "workloads" / "workload-base.csv", table)
    hours = sum(job.recorded_seconds * job.accelerators for job in jobs) / 3600
    assert round(hours) == 618
