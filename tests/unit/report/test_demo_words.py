"""What the demo writes besides its checks: plain lines, scaled manifests, and its refusals."""

from pathlib import Path

import pytest
import yaml

from headrace.api.generated import admin_pb2, common_pb2, jobs_pb2
from headrace.api.plan import ExecutionPlan
from headrace.cli import demo
from headrace.cli.demo_checks import Check
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.plan_words import kind
from headrace.cli.top import Facts
from tests.unit.report.test_demo_story import a_job

REPOSITORY = Path(__file__).parents[3]


def facts(now: float, *jobs: jobs_pb2.Job, decisions: tuple[int, ...] = ()) -> Facts:
    events = [
        jobs_pb2.LoggedEvent(
            sequence=number,
            job_name="gpt",
            message=f"decided: number {number}",
            reason=common_pb2.Reason(code="Started"),
        )
        for number in decisions
    ]
    return Facts(admin_pb2.GetClusterResponse(), jobs, (), events, now)


def test_lines_tell_changes_once_and_progress_now_and_then() -> None:
    lines = demo.PlainLines()
    starting, running = a_job("gpt", "Starting", 0, 4), a_job("gpt", "Running", 30, 4)
    starting.status.plan = running.status.plan = "dp4"
    running.status.progress.loss = 3.14159
    assert lines.new(facts(100, starting)) == ["    0 s  gpt is Starting dp4 on 4 accelerators"]
    assert lines.new(facts(101, starting, decisions=(7,))) == ["    1 s  decided: number 7"]
    assert lines.new(facts(102, starting, decisions=(7,))) == []
    assert lines.new(facts(111, running, decisions=(7, 8))) == [
        "   11 s  decided: number 8",
        "   11 s  gpt is Running dp4 on 4 accelerators",
        "   11 s  gpt step 30 of 500, loss 3.142",
    ]
    assert lines.new(facts(112, running)) == []
    assert lines.new(facts(122, running)) == ["   22 s  gpt step 30 of 500, loss 3.142"]


def test_a_line_tells_what_a_job_is_on_its_way_to() -> None:
    lines, job = demo.PlainLines(), a_job("gpt", "Running", 30, 4)
    assert lines.new(facts(100, job)) == ["    0 s  gpt is Running dp4 on 4 accelerators"]
    job.status.plan_asked_for = "pp2.1f1b-ga4"
    assert lines.new(facts(101, job)) == [
        "    1 s  gpt is Running dp4 on 4 accelerators, on its way to pp2.1f1b-ga4"
    ]


LONG = "   84 s  decided: gpt: stop attempt 1: makes room for default/vit on node-a, node-b " * 3


def test_sentences_break_at_the_width_of_the_terminal_and_hang(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = "/tmp/" + "a" * 90
    demo.tell(f"{LONG}\x1b[2J{path}", hang=9)
    lines = capsys.readouterr().out.splitlines()
    assert lines.pop().strip() == path  # whole, so that it can be copied
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("   84 s  decided")
    assert all(line[:9].isspace() and line[9] != " " for line in lines[1:])
    assert " ".join(lines).split() == LONG.split()


@pytest.mark.parametrize(("holds", "word"), [(True, "ok"), (False, "FAILED")])
def test_a_check_begins_with_its_verdict_and_fits(holds: bool, word: str) -> None:
    lines = demo.verdict(Check("gpt ran " * 15, holds, "2, 4"), columns=80, colour=False)
    assert max(map(len, lines)) <= 80
    assert {line[:7] for line in lines} == {f"{word:<7}", " " * 7}
    assert " ".join(lines).split() == [word, *["gpt", "ran"] * 15, "(2,", "4)"]
    coloured = demo.verdict(Check("claim", holds, "found"), columns=80, colour=True)
    assert coloured[0].endswith(f"{word}\x1b[0m{' ' * (7 - len(word))}claim (found)")


@pytest.mark.parametrize("name", ["gpt", "vit"])
def test_scaling_changes_the_steps_and_nothing_else(name: str, tmp_path: Path) -> None:
    original = REPOSITORY / "examples" / f"{name}.yaml"
    scaled = demo._scaled(original, tmp_path / "new", 10)
    before, after = (yaml.safe_load(path.read_text()) for path in (original, scaled))
    for key in ("steps", "warmupSteps"):
        assert after["spec"]["training"].pop(key) == 10 * before["spec"]["training"].pop(key)
    assert after == before
    assert scaled.stem == name


def test_the_examples_are_the_jobs_that_the_demo_needs() -> None:
    from headrace.api.manifest_source import read_jobs

    folder = demo._examples(REPOSITORY / "examples")
    jobs, findings = read_jobs((str(folder / "gpt.yaml"), str(folder / "vit.yaml")), "")
    assert findings == ()
    gpt, vit = (each.job for each in jobs)
    assert (gpt.metadata.name, vit.metadata.name) == ("gpt", "vit")
    assert gpt.spec.accelerators.minimum <= 2 <= 4 <= (gpt.spec.accelerators.maximum or 0)
    plans = [ExecutionPlan.parse(plan) for plan in gpt.spec.plans or ()]
    best = {plan.ranks: plan for plan in reversed(plans)}
    # On four CPU slots it is four and two, on two GPUs two and one.
    assert len({kind(best[size]) for size in (4, 2, 1)}) == 3
    assert vit.spec.accelerators.minimum <= 2 <= (vit.spec.accelerators.maximum or 0)


def test_a_folder_without_the_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="--examples") as refusal:
        demo._examples(tmp_path)
    assert refusal.value.code is ExitCode.USAGE


def test_a_home_that_holds_something_is_refused(tmp_path: Path) -> None:
    assert demo._home(tmp_path) == tmp_path
    (tmp_path / "headrace.db").touch()
    with pytest.raises(CommandError, match="empty or new folder") as refusal:
        demo._home(tmp_path)
    assert refusal.value.code is ExitCode.REFUSED
