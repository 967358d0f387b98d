"""What the demo writes besides its checks: plain lines, scaled manifests, and its refusals."""

import re
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
    running.status.end.low, running.status.end.high = 160.0, 170.0
    running.status.end.made_at.seconds, running.status.end.outcomes_missing = 110, 19
    (line,) = lines.new(facts(122, running))
    assert re.fullmatch(r"   22 s  gpt step 30 of 500, loss 3\.142, done ~\d\d:\d\d", line)


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


@pytest.mark.parametrize("name", demo.NAMES)
def test_scaling_changes_the_steps_and_nothing_else(name: str) -> None:
    original = REPOSITORY / "examples" / f"{name}.yaml"
    before, after = demo.fitted(original, 4), demo.fitted(original, 4, 10)
    for key in ("steps", "warmupSteps"):
        assert after["spec"]["training"].pop(key) == 10 * before["spec"]["training"].pop(key)
    assert after == before


@pytest.mark.parametrize(
    ("accelerators", "gpt", "plans", "llama", "vit"),
    [
        (4, (2, 4), ["dp4", "pp2.1f1b-ga4"], (2, 2), (1, 2)),
        (2, (1, 2), ["pp2.1f1b-ga4", "dp1"], (1, 1), (1, 2)),
    ],
)
def test_the_examples_become_the_jobs_that_the_demo_needs(
    tmp_path: Path,
    accelerators: int,
    gpt: tuple[int, int],
    plans: list[str],
    llama: tuple[int, int],
    vit: tuple[int, int],
) -> None:
    from headrace.api.manifest_source import read_jobs

    folder = demo._examples(REPOSITORY / "examples")
    for name in demo.NAMES:
        document = demo.fitted(folder / f"{name}.yaml", accelerators)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
    jobs, findings = read_jobs(tuple(str(tmp_path / f"{name}.yaml") for name in demo.NAMES), "")
    assert findings == ()
    specs = {each.job.metadata.name: each.job.spec for each in jobs}
    sizes = {
        name: (spec.accelerators.minimum, spec.accelerators.maximum) for name, spec in specs.items()
    }
    assert sizes == {"gpt": gpt, "llama": llama, "vit": vit}
    assert list(specs["gpt"].plans or ()) == plans
    whole, half = (ExecutionPlan.parse(plan) for plan in plans)
    assert (whole.ranks, half.ranks) == (accelerators, accelerators // 2)
    assert kind(whole) != kind(half)
    assert specs["llama"].service_class == "Guaranteed"
    # The third job must not put the first one off; the guaranteed one may ask it for room.
    assert specs["vit"].priority < specs["gpt"].priority == specs["llama"].priority


def test_an_explanation_is_told_as_the_command_tells_it_and_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Plane:
        def get_job_by_uid(self, uid: str) -> jobs_pb2.Job:
            return a_job(uid.removeprefix("u-"), "Running", 30, 4)

        def explain(self, uid: str) -> admin_pb2.ExplainResponse:
            return admin_pb2.ExplainResponse(stage="Running", because=[f"{uid} is fast. " * 9])

    monkeypatch.setenv("COLUMNS", "80")
    demo._explain(Plane(), "u-gpt")  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(" explain gpt")
    assert lines[1].startswith("  /gpt is Running")
    assert " ".join(" ".join(lines[2:]).split()) == ("u-gpt is fast. " * 9).strip()
    assert max(map(len, lines)) <= 80


def test_what_was_learnt_is_told_as_a_table_that_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    row = admin_pb2.ComparedRow(
        uid="u-gpt",
        plan="pp2.1f1b-ga4",
        placement="2",
        measured_seconds=0.1234,
        predicted_seconds=0.1,
        lower_seconds=0.05,
        upper_seconds=0.2,
        guessed_seconds=0.01,
    )
    fit = admin_pb2.Fit(model_type="gpt2-small fp32 batch 16x64", rows=1, compared=[row])
    demo._tell_what_was_learnt([fit])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split()[:4] == ["gpt2-small", "pp2.1f1b-ga4", "2", "10"]
    assert lines[-1].split()[4:] == ["123", "100", "50", "to", "200"]
    assert max(map(len, lines)) <= 80
    demo._tell_what_was_learnt([])
    assert "nothing was learnt" in capsys.readouterr().out


def test_what_was_refused_is_read_from_the_control_planes_own_count() -> None:
    text = "\n".join(
        (
            "# HELP headrace_policy_refused_total Decisions not carried out.",
            "# TYPE headrace_policy_refused_total counter",
            'headrace_policy_refused_total{policy="rubick"} 2.0',
            'headrace_policy_refused_total{policy="fifo"} 1.0',
            'headrace_policy_refused_created{policy="fifo"} 1.7e9',
        )
    )
    assert demo.refusals_in(text) == 3
    # Most broken rules are one job's, and are counted apart.
    of_jobs = 'headrace_policy_refused_targets_total{policy="rubick"} 5.0'
    assert demo.refusals_in(f"{text}\n{of_jobs}") == 8
    assert demo.refusals_in("headrace_jobs 7\n") == 0


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
