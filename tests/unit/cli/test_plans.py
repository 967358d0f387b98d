"""`headrace plans` and what it tells of plans that cannot run."""

import json
import re
from pathlib import Path

import pytest

from headrace.api.feasible_plans import Hardware, feasible_plans
from headrace.api.memory import GIB, estimated_peak_bytes
from headrace.api.models import PRESETS
from headrace.api.plan import ExecutionPlan
from headrace.cli import plans as work
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.output import Format
from tests.architecture.source_tree import ROOT


@pytest.fixture(autouse=True)
def _eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_the_plans_that_can_run_are_listed_with_what_they_need(
    capsys: pytest.CaptureFixture[str],
) -> None:
    work.plans(work.Question("gpt2-1.26b", 2, 16, memory="30GiB", precision="bf16"), Format.TABLE)
    told = capsys.readouterr()
    shape = PRESETS["gpt2-1.26b"]
    able = feasible_plans(shape, 2, 16, Hardware(30 * GIB), precision="bf16")
    heading, *rows = told.out.splitlines()
    assert heading.split() == ["PLAN", "GIB", "HOST", "GIB"]
    assert [row.split()[0] for row in rows] == [str(plan) for plan in able]
    peak = estimated_peak_bytes(shape, ExecutionPlan.parse("dp2-z3-gc"), 16, precision="bf16")
    figures = {name: size for name, size, _ in map(str.split, rows)}
    assert figures["dp2-z3-gc"] == f"{peak.accelerator_bytes / GIB:.1f}"
    assert max(map(len, told.out.splitlines())) <= 80
    assert f"{len(able)} of 464 plans can run" in told.err
    assert "DoesNotFit" in told.err


def test_all_plans_or_named_ones_are_told_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = ("dp2", "tp2", "dp2-z1-offload")
    work.plans(work.Question("bert-tiny", 2, 16, plans=named), Format.TABLE)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert out.splitlines()[1].split()[0] == "dp2"
    out = " ".join(out.split())
    assert "tp2: NotSupportedByFamily: wanted data parallelism" in out
    assert "dp2-z1-offload: NotCombined: wanted ZeRO-1 with replicas only" in out
    work.plans(work.Question("bert-tiny", 2, 16, everything=True), Format.NAME)
    assert set(named) < set(capsys.readouterr().out.split())


def test_programs_get_bytes_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    question = work.Question(
        "gpt2-1.26b", 1, 16, memory="16GiB", plans=("dp1", "dp1-z3-ga16-offload")
    )
    work.plans(question, Format.JSON)
    too_large, fits = json.loads(capsys.readouterr().out)["items"]
    assert (too_large["feasible"], too_large["reason"]) == (False, "DoesNotFit")
    assert too_large["acceleratorBytes"] == sum(too_large["parts"].values()) > 16 * GIB
    assert fits["feasible"] is True
    assert "reason" not in fits


def test_where_nothing_fits_the_nearest_plan_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    work.plans(work.Question("llama-30b", 1, 16, memory="10GiB"), Format.TABLE)
    told = capsys.readouterr()
    assert told.out == ""
    assert "headrace: dp1-z3-ga16-gc-offload is the nearest: does not fit by" in told.err
    assert "0 of 80 plans can run" in told.err


def test_a_model_of_hugging_face_is_read_from_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    sizes = {"n_layer": 2, "n_embd": 64, "n_head": 4, "n_positions": 64, "vocab_size": 256}
    config.write_text(json.dumps({"model_type": "gpt2", **sizes}))
    work.plans(work.Question(str(config), 1, 2), Format.JSON)
    from_file = capsys.readouterr().out
    work.plans(work.Question("gpt2-tiny", 1, 2), Format.JSON)
    assert from_file == capsys.readouterr().out


@pytest.mark.parametrize(
    ("question", "told"),
    [
        (work.Question("gpt5", 1, 16), "wanted one of the models gpt2-tiny"),
        (work.Question("gpt2-tiny", 2, 16, plans=("dp4",)), "wanted plans of 2 accelerators"),
        (work.Question("gpt2-tiny", 2, 16, plans=("x",)), "--plans: wanted a plan such as"),
        (work.Question("gpt2-tiny", 1, 16, memory="80"), "--memory: wanted that of one"),
        (work.Question("gpt2-tiny", 1, 16, memory="lots"), "--memory: wanted that of one"),
        (work.Question("gpt2-tiny", 1, 16, precision="fp8"), "--precision: wanted fp32 or bf16"),
    ],
)
def test_what_cannot_be_answered_is_refused(question: work.Question, told: str) -> None:
    with pytest.raises(CommandError, match=told) as caught:
        work.plans(question, Format.TABLE)
    assert caught.value.code is ExitCode.USAGE


def test_what_the_document_shows_is_what_its_code_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (ROOT / "docs/plans.md").read_text("utf-8")
    found = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", text, re.DOTALL)
    assert found is not None
    exec(found[1], {})
    assert capsys.readouterr().out == found[2]
