"""Tables of measured step times: read whole or not at all, and asked by plan and shares."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.domain.job import AcceleratorRequest, JobSpec, Topology
from controlplane.domain.queue import DEFAULT_QUEUE
from headrace.api.plan import ExecutionPlan
from simulator.measured_table import (
    ACCELERATOR_TYPE,
    GLOBAL_BATCHES,
    MeasuredTable,
    name_of,
    plan_named,
    read_rows,
    read_table,
    shares_named,
)

HEAD = "exec_plan,placement,iter_time,forward,overlap_sync,optimize\n"
BERT = HEAD + "ga,8,0.2,40,120,20\nzero-dp,17,0.3,0,0,0\n\ngc,4,0.5,40,120,20\nga,2,0.6,4,1,2\n"


def written(folder: Path, text: str, model: str = "bert") -> Path:
    file = folder / model / "placements.csv"
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    return file


def wanting(model: str, *plans: str, minimum: int = 1, maximum: int = 64) -> JobSpec:
    return JobSpec(
        DEFAULT_QUEUE,
        AcceleratorRequest(minimum, maximum),
        global_batch_size=GLOBAL_BATCHES[model],
        plans=tuple(map(ExecutionPlan.parse, plans)),
        model_type=model,
        steps=10,
    )


@pytest.fixture
def bert(tmp_path: Path) -> MeasuredTable:
    written(tmp_path, BERT)
    return read_table(tmp_path)


@pytest.mark.parametrize(
    ("name", "accelerators", "batch", "plan"),
    [
        ("ga", 1, 64, "dp1"),
        ("ga", 8, 64, "dp8"),
        ("gc", 4, 64, "dp4-gc"),
        ("zero-dp", 2, 64, "dp2-z2"),
        ("zero-offload", 16, 16, "dp16-z2-offload"),
        ("244", 32, 8, "dp4-tp4-pp2.1f1b-ga2"),
        ("182", 16, 8, "dp2-tp8"),
        ("811", 8, 16, "pp8.1f1b-ga16"),
        ("248", 64, 8, "dp8-tp4-pp2.1f1b"),
    ],
)
def test_names_of_plans_are_read_and_written_back(
    name: str, accelerators: int, batch: int, plan: str
) -> None:
    assert str(plan_named(name, accelerators, batch)) == plan
    assert name_of(ExecutionPlan.parse(plan)) == name


def test_a_plan_without_a_name_there_keeps_its_own() -> None:
    for text in ("dp2-tp2-z2", "dp4-z3", "dp2-z2-gc", "dp2-tp4-gc"):
        assert name_of(ExecutionPlan.parse(text)) == text


def test_the_order_of_a_placements_digits_means_nothing() -> None:
    assert shares_named("17") == shares_named("71") == (7, 1)


def test_a_way_is_found_by_plan_and_shares_only_where_it_was_measured(bert: MeasuredTable) -> None:
    spec = wanting("bert", "dp8", "dp8-z2", "dp4-gc")
    dp8, z2 = spec.plans[:2]
    known = bert.way(spec, ACCELERATOR_TYPE, z2, (7, 1))
    assert known is not None
    assert (known.seconds, known.seconds_upper, known.accelerators) == (0.3, 0.3, 8)
    assert bert.way(spec, ACCELERATOR_TYPE, dp8, (7, 1)) is None
    assert bert.way(spec, "another-type", z2, (7, 1)) is None
    assert bert.way(replace(spec, global_batch_size=64), ACCELERATOR_TYPE, z2, (7, 1)) is None
    assert bert.way(replace(spec, plans=(dp8,)), ACCELERATOR_TYPE, z2, (7, 1)) is None


def test_ways_keep_to_the_jobs_plans_sizes_and_topology(bert: MeasuredTable) -> None:
    def found(spec: JobSpec) -> set[str]:
        return {f"{way.plan} {way.shares}" for way in bert.ways(spec, ACCELERATOR_TYPE)}

    every = wanting("bert", "dp8", "dp8-z2", "dp4-gc", "dp2")
    assert found(every) == {"dp8 (8,)", "dp8-z2 (7, 1)", "dp4-gc (4,)", "dp2 (2,)"}
    assert found(wanting("bert", "dp8", "dp4-gc", maximum=4)) == {"dp4-gc (4,)"}
    assert found(wanting("bert")) == {"dp8 (8,)", "dp2 (2,)"}
    one_node = replace(every.accelerators, topology=Topology.SAME_NODE)
    assert "dp8-z2 (7, 1)" not in found(replace(every, accelerators=one_node))
    assert found(replace(every, micro_batch_size_max=4)) == {"dp8 (8,)", "dp8-z2 (7, 1)"}
    assert found(wanting("vit")) == set()


def test_the_same_question_gets_the_very_same_answer(bert: MeasuredTable) -> None:
    spec = wanting("bert", "dp8")
    assert bert.ways(spec, ACCELERATOR_TYPE) is bert.ways(replace(spec, steps=11), ACCELERATOR_TYPE)


def test_plans_are_listed_by_size_and_the_fastest_first(tmp_path: Path) -> None:
    written(
        tmp_path, HEAD + "ga,4,0.4,1,1,1\nzero-dp,22,0.5,1,1,1\nzero-dp,4,0.3,1,1,1\nga,1,1,0,0,0"
    )
    plans = read_table(tmp_path).plans("bert")
    assert [str(plan) for plan in plans] == ["dp1", "dp4-z2", "dp4"]


def test_what_no_group_of_one_node_can_do_is_a_row_but_no_way(tmp_path: Path) -> None:
    text = HEAD + "344,66666666,3.2,0,1,1\n344,888888,2.2,0,1,1"
    table = read_table(written(tmp_path, text, "llama30").parent.parent)
    assert [row.shares for row in table.rows] == [(6,) * 8, (8,) * 6]
    assert [way.shares for way in table.every_way("llama30")] == [(8,) * 6]


def test_phases_are_seconds_and_unknown_where_the_table_says_zero(tmp_path: Path) -> None:
    (row, *_) = read_rows(written(tmp_path, HEAD + "ga,8,0.2,0,120,20"))
    assert (row.forward_seconds, row.overlap_seconds, row.optimizer_seconds) == (None, 0.12, 0.02)
    (row,) = read_rows(written(tmp_path, HEAD + "ga,8,0.2,0.01,0.1,0.05", "vit"))
    assert (row.forward_seconds, row.optimizer_seconds) == (0.01, 0.05)


WRONG = [
    ("exec_plan,placement,iter_time\nga,8,0.2", ":1: wanted exec_plan,placement,iter_time,forward"),
    (HEAD, ": wanted rows below"),
    (HEAD + "ga,8,0.2", ":2: wanted 6 cells, got 3"),
    (HEAD + "ga,8,0,1,1,1", ":2: iter_time: wanted seconds above 0"),
    (HEAD + "ga,8,-0.2,1,1,1", ":2: iter_time: wanted seconds above 0"),
    (HEAD + "ga,8,4000,1,1,1", ":2: iter_time: wanted seconds above 0 and up to 3600, got 4000"),
    (HEAD + "ga,8,fast,1,1,1", ":2: iter_time: wanted a number, got 'fast'"),
    (HEAD + "ga,8,nan,1,1,1", ":2: iter_time: wanted a number"),
    (HEAD + "ga,8,0.2,-1,1,1", ":2: forward: wanted a time, got -1"),
    (HEAD + "ga,8,0.2,1,1,1\n\nga,8,0.3,1,1,1", ":4: ga on 8 was measured in line 2 already"),
    (HEAD + "ga,17,0.2,1,1,1\nga,71,0.3,1,1,1", ":3: ga on 71 was measured in line 2 already"),
    (HEAD + "ga,80,0.2,1,1,1", ":2: wanted a placement of digits from 1 to 8"),
    (HEAD + "ga,9,0.2,1,1,1", ":2: wanted a placement of digits from 1 to 8"),
    (HEAD + "ga,,0.2,1,1,1", ":2: wanted a placement of digits"),
    (HEAD + "tp,8,0.2,1,1,1", ":2: wanted ga, gc, zero-dp, zero-offload or three digits"),
    (HEAD + "118,8,0.2,1,1,1", ":2: plan 118 is data parallel, which is written ga"),
    (HEAD + "222,4,0.2,1,1,1", ":2: plan 222 takes 8 accelerators, here are 4"),
    (HEAD + "ga,3,0.2,1,1,1", ":2: a batch of 32 does not divide by the replicas of dp3"),
    (HEAD + 'ga,8,0.2,1,1,"1', ": not a CSV file"),
]


@pytest.mark.parametrize(("text", "told"), WRONG)
def test_a_wrong_table_is_told_with_file_and_line(tmp_path: Path, text: str, told: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{file}{told}')}"):
        read_table(tmp_path)


def test_an_unknown_model_and_an_empty_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="for some of vit, roberta"):
        read_table(tmp_path)
    written(tmp_path, BERT, "resnet")
    with pytest.raises(ValueError, match="the batch of model 'resnet' is not known"):
        read_table(tmp_path)


def test_measurements_under_other_conditions_are_not_taken_for_the_models(tmp_path: Path) -> None:
    written(tmp_path, BERT)
    written(tmp_path, "exec_plan,placement,cpu_threads,iter_time\n182,4444,2,0", "llama7b_bsz16")
    written(tmp_path, "exec_plan,placement,iter_time\ntp+ga,2,3", "t5_3B")
    assert read_table(tmp_path).models == ("bert",)


@pytest.mark.skipif("HEADRACE_DATA" not in os.environ, reason="HEADRACE_DATA names no data folder")
def test_the_artifacts_tables_say_what_is_known_of_them() -> None:
    table = read_table(Path(os.environ["HEADRACE_DATA"]) / "rubick" / "measured")
    assert {model: len(table.every_way(model)) for model in table.models} == {
        "vit": 95,
        "roberta": 120,
        "bert": 72,
        "t5": 92,
        "gpt2": 74,
        "llama7": 48,
        "llama30": 8,  # eleven rows, three of which no tensor-parallel group of one node can do
    }
    assert len(table.rows) == 512

    def best(model: str, accelerators: int, nodes: int) -> tuple[str, float]:
        found = [
            way
            for way in table.every_way(model)
            if (way.accelerators, len(way.shares)) == (accelerators, nodes)
        ]
        way = min(found, key=lambda each: each.seconds)
        return name_of(way.plan), round(way.seconds, 3)

    assert best("llama7", 32, 4) == ("244", 0.943)
    assert best("llama7", 64, 8) == ("248", 0.673)
    assert best("llama7", 16, 2) == ("182", 1.131)
    assert best("llama30", 64, 8) == ("444", 2.018)
