"""The plain scripts beside which the trainer is measured, and how the two are compared."""

import json
import os
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from torch.distributed import TCPStore
from torch.multiprocessing import spawn

from benchmarks.plain import dp2, dp2_z3, pp2, tp2
from benchmarks.plain.setting import shape_of
from benchmarks.trainer_against_plain import (
    PLAIN,
    FailedError,
    Row,
    manifest,
    quartiles,
    ratios,
    table,
    write,
)
from headrace.api.manifest import TrainingJob, parse
from headrace.api.models import PRESETS
from headrace.api.plan import ExecutionPlan

RANKS = 2


def train_in_turn(rank: int, ports: list[int], folder: Path) -> None:
    """One rank of every script, one after the other; runs in a process of its own."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the test has the store, as torchrun would
        "CUDA_VISIBLE_DEVICES": "",
    }
    torch.set_num_threads(1)
    with (folder / f"rank-{rank}").open("w") as output, redirect_stdout(output):
        for port, script in zip(ports, (dp2, dp2_z3, tp2, pp2), strict=True):
            os.environ["MASTER_PORT"] = str(port)
            options = ["--global-batch", "8", "--steps", "6", "--warmup", "2"]
            script.main(["--model", "gpt2-tiny", *options])


@pytest.mark.process
@pytest.mark.long
def test_every_plain_script_trains_the_same_model(tmp_path: Path) -> None:
    stores = [TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in PLAIN]
    ports = [store.port for store in stores]
    spawn(train_in_turn, (ports, tmp_path), nprocs=RANKS)  # type: ignore[no-untyped-call]
    assert (tmp_path / "rank-1").read_text() == ""
    found = [json.loads(line) for line in (tmp_path / "rank-0").read_text().splitlines()]
    assert [line["plan"] for line in found] == [*PLAIN]
    first = found[0]["losses"]
    assert len(first) == 8
    assert first[0] - first[-1] > 0.1  # it learns its one batch, so gradients matter
    for line in found:
        assert line["losses"] == pytest.approx(first, abs=1e-4), line["plan"]
        seconds = line["iteration_seconds"]
        assert 0 < seconds["lower"] <= seconds["median"] <= seconds["upper"]
        assert line["tokens_per_second"] == pytest.approx(8 * 64 / seconds["median"])


def test_the_trainer_is_given_the_model_of_the_plain_scripts(tmp_path: Path) -> None:
    given = Namespace(model="gpt2-small", global_batch=16, steps=30, warmup=10)
    job = parse(manifest(given, PRESETS[given.model], tmp_path))
    assert isinstance(job, TrainingJob), job
    assert job.spec.model is not None
    assert job.spec.model.shape() == shape_of(given.model)
    for plan in PLAIN:
        assert str(ExecutionPlan.parse(plan)) == plan


def a_row(plan: str, turn: int, script: str, median: float) -> Row:
    return Row(
        model="gpt2-1.26b",
        global_batch=16,
        plan=plan,
        round=turn,
        script=script,
        steps=30,
        lower=median - 0.001,
        median=median,
        upper=median + 0.001,
        tokens_per_second=16 * 1024 / median,
        peak_allocated_bytes=None,
        device="a GPU",
        torch="2",
    )


def test_the_table_compares_rounds_and_marks_what_is_missing(tmp_path: Path) -> None:
    rows = [
        a_row("dp2", 1, "trainer", 0.200),
        a_row("dp2", 1, "plain", 0.198),
        a_row("dp2", 2, "plain", 0.180),
        a_row("dp2", 2, "trainer", 0.200),
        a_row("tp2", 1, "plain", 0.100),
        a_row("tp2", 1, "trainer", 0.200),
        a_row("dp2-z3", 1, "plain", 0.100),
    ]
    assert ratios(rows, "dp2") == pytest.approx([0.99, 0.90])
    assert ratios(rows, "dp2-z3") == ratios(rows, "pp2.1f1b-ga4") == []
    lines = table(rows, [*PLAIN]).splitlines()[2:]
    assert lines[0] == (
        "| dp2 | 200.0 (199.0 to 201.0) | 189.0 (188.0 to 190.0) | 0.945 | 0.900 to 0.990 "
        "| **no** |"
    )
    assert lines[1] == ("| dp2-z3 | not measured | 100.0 (99.0 to 101.0) | not measured | - | - |")
    assert "0.500" in lines[2]
    assert lines[3].count("not measured") == 3
    write(rows, tmp_path / "new" / "rows.csv")
    stored = (tmp_path / "new" / "rows.csv").read_text().splitlines()
    assert len(stored) == 1 + len(rows)
    assert stored[0].startswith("model,global_batch,plan,round,script,")


def test_only_steps_after_the_warmup_count() -> None:
    lines = [{"step": step, "step_seconds": 9.0 if step < 3 else 0.1 * step} for step in range(8)]
    progress = "\n".join(json.dumps(line) for line in lines)
    found = quartiles(progress, warmup=2, steps=5)
    assert found == pytest.approx({"lower": 0.4, "median": 0.5, "upper": 0.6})
    with pytest.raises(FailedError, match=r"\[8, 9\]"):
        quartiles(progress, warmup=2, steps=7)
