"""What `headrace profile` prints and refuses; measuring itself is tested with the workloads."""

import fcntl
import os
from pathlib import Path

import pytest

from headrace.api.chosen_plans import chosen_plans
from headrace.api.models import PRESETS
from headrace.api.profile_file import rows_in
from headrace.api.profile_rows import Asked, LinkRow, Machine, PlanRow, Status
from headrace.cli import profile as work
from headrace.cli.exit_codes import CommandError, ExitCode

ASKED = Asked("gpt2-1.26b", 8, 16, 1024, "bf16")
MACHINE = Machine("NVIDIA H100 80GB HBM3", 16, "2.11.0", "13.0", "2.28.9", "580.159.04", "0.1.0")


def a_row(plan: str) -> PlanRow:
    return PlanRow(
        ASKED,
        plan,
        Status.MEASURED,
        parameters=1_256_000_000,
        iteration=12.3456,
        tokens_rate=105_123.4,
        flops_rate=432.1e12,
        share_of_peak=0.4369,
        peak_process=79 * 2**30,
        switch_build=0.1,
        switch_parameters=10.0,
        switch_equip=0.2,
        switch_moments=0.3,
    )


@pytest.fixture
def eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.usefixtures("eighty")
def test_a_table_of_the_largest_figures_fits_eighty_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plans = chosen_plans(PRESETS["gpt2-1.26b"], 8, 16)
    work.show([a_row(str(plan)) for plan in plans], [])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(plans) + 1
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["dp8", "12345.6", "105123", "432.1", "43.7%", "79.00", "10.60"]


@pytest.mark.usefixtures("eighty")
def test_what_has_no_figures_is_told_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    link = LinkRow("all-reduce", 8, 2**26, 0.001, 350e9, MACHINE)
    failed = PlanRow(ASKED, "dp8", Status.OUT_OF_MEMORY, reason="CUDA out of memory")
    work.show([failed], [link])
    out = capsys.readouterr().out
    assert "dp8: out-of-memory: CUDA out of memory" in out
    assert "all-reduce 350.0 GB/s" in out


def a_wish(model: str = "gpt2-tiny", **changes: object) -> work.Wish:
    values = {"accelerators": 1, "batch": 16, "sequence_length": 0, "plans": (), "seconds": 60.0}
    return work.Wish(model, **({"output": None} | values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (a_wish("gpt5"), "wanted one of the models gpt2-tiny"),
        (a_wish("gpt2-1.26b"), "there is no GPU here; without one, take gpt2-tiny"),
        (a_wish(accelerators=1 + (os.cpu_count() or 1)), "--accelerators: wanted at most"),
        (a_wish(plans=("dp0",)), "--plans: wanted a plan such as"),
        (
            a_wish(plans=("dp1", "dp3")),
            "--plans: wanted plans for at most 1 accelerator, got dp3; take --accelerators 3",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_with_what_can(
    wish: work.Wish, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work, "gpus", lambda: ())
    with pytest.raises(CommandError, match=told) as caught:
        work.profile(wish)
    assert caught.value.code is ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def unstarted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that may not be started: what is wrong must be told before."""

    def start(*_: object, **__: object) -> None:
        raise AssertionError("ranks were started")

    monkeypatch.setattr(work, "gpus", lambda: ())
    monkeypatch.setattr(work, "missing_packages", lambda names: [])
    monkeypatch.setattr(work, "_run", start)


@pytest.mark.usefixtures("unstarted")
def test_a_file_that_cannot_be_written_is_told_before_measuring(tmp_path: Path) -> None:
    for output, why in (
        (tmp_path / "gone" / "x.jsonl", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(CommandError, match=f"--output: {output} cannot be written: {why}"):
            work.profile(a_wish(output=output))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("unstarted")
def test_a_file_that_another_run_writes_is_left_to_it(tmp_path: Path) -> None:
    output = tmp_path / "x.jsonl"
    with output.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CommandError, match="another `headrace profile` is writing"):
            work.profile(a_wish(output=output))
    assert output.exists()
    for name in ("x.jsonl", "new.jsonl"):
        with pytest.raises(AssertionError, match="ranks were started"):
            work.profile(a_wish(output=tmp_path / name))
    assert list(tmp_path.iterdir()) == [output]  # and no empty one of its own is left


@pytest.fixture
def overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that do not come to the end of their first plan."""
    monkeypatch.setattr(work, "gpus", lambda: ())
    monkeypatch.setattr(work, "missing_packages", lambda names: [])
    monkeypatch.setattr(work, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(work, "profiling_command", lambda *_, **__: ["tail", "-f", "/dev/null"])


@pytest.mark.process
@pytest.mark.usefixtures("overdue")
def test_ranks_that_take_too_long_are_ended_and_the_plan_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "x.jsonl"
    with pytest.raises(CommandError, match="nothing was measured; more --seconds") as caught:
        work.profile(a_wish(output=output, plans=("dp1", "dp1-gc", "dp1-ga2"), seconds=0.01))
    assert caught.value.code is ExitCode.FAILED
    found = [(row.plan, row.reason) for row in rows_in(output) if isinstance(row, PlanRow)]
    assert found == [
        ("dp1", "the time was over in dp1"),
        ("dp1-gc", "the time was over"),
        ("dp1-ga2", "the time was over"),
    ]
    told = capsys.readouterr()
    assert "the time was over in dp1; more --seconds would help" in told.err
    assert told.out.splitlines() == [
        "1 not measured: the time was over in dp1",
        "2 not measured: the time was over",
    ]


def test_what_there_was_no_time_for_takes_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    plans = chosen_plans(PRESETS["gpt2-1.26b"], 8, 16)
    left = [
        PlanRow(ASKED, str(plan), Status.NOT_MEASURED, reason="the time was over") for plan in plans
    ]
    work.show(left, [])
    assert capsys.readouterr().out == f"{len(plans)} not measured: the time was over\n"
