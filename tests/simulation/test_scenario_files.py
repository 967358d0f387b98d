"""What is read from scenario and snapshot files, and how a wrong one is told."""

import sys
from pathlib import Path

import pytest

from controlplane.domain.clock import seconds
from controlplane.domain.ids import JobUid
from controlplane.live import live_policies
from simulator import __main__ as program
from simulator.run import simulate
from simulator.scenario import read


def played(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["simulator", *arguments])
    return program.main()


def test_the_example_of_the_help_is_a_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "week.yaml"
    file.write_text(program.EXAMPLE)
    scenario = read(file, seed=1)
    assert len(scenario.nodes) == 4
    assert len(scenario.arrivals) == 21
    with pytest.raises(SystemExit, match="0"):
        played("--help", monkeypatch=monkeypatch)
    told = capsys.readouterr().out
    assert all(f"  {line}" in told.splitlines() for line in program.EXAMPLE.splitlines())
    assert max(map(len, told.splitlines())) <= 80


WRONG = [
    ("nodes:\n- {count: 4, acelerators: 8}", ":2: nodes[0].acelerators:", "mean accelerators?"),
    ("nodes:\n- count: 4\n  accelerators: 0", ":3: nodes[0].accelerators:", "wanted more than 0"),
    (
        "nodes: [{}]\nfaults:\n  lateSeconds: soon",
        ":3: faults.lateSeconds:",
        'a number, got "soon"',
    ),
    ("jobs: []", ":1: nodes:", "is required"),
    ("nodes: []", ":1: nodes:", "wanted at least 1"),
    ("nodes: [{}]\nqueues:\n  a: 8", ":3: queues.a:", "wanted"),
    ("nodes: [{}]\nqueues:\n  a: {quota: -1}", ":3: queues.a.quota:", "at least 0, got -1"),
    ("nodes: [{}]\nqueues:\n  a: {borrow: 4}", ":3: queues.a.borrow:", "nothing that it could"),
    ("nodes: [{}]\njobs:\n- {name: a, queue: x}", ":3: jobs[0].queue:", "there is no queue 'x'"),
    ("nodes: [{}]\njobs:\n- {name: a, minimum: 9}", ":3: jobs[0].minimum:", "at most 8"),
    ("nodes: [{}]\njobs:\n- {name: a, type: x}", ":3: jobs[0].type:", "there are nvidia-h100"),
    ("nodes: [{}]\njobs:\n- name: a\n- name: a", ":4: jobs[1].name:", "above already"),
    (
        "nodes: [{}]\njobs:\n- {name: a, minimum: 4, maximum: 2}",
        ":3: jobs[0].maximum:",
        "wanted 4 or more, which is the minimum, got 2",
    ),
    (
        "nodes: [{}]\njobs:\n- {name: a, minimum: 3, globalBatchSize: 8}",
        ":3: jobs[0].globalBatchSize:",
        "no number of accelerators from 3 to 3 divides 8 samples",
    ),
    ("nodes: [", ":1: document:", "is not YAML"),
    ("# nothing", ": wanted one scenario", "found no documents"),
]


@pytest.mark.parametrize(("text", "place", "words"), WRONG)
def test_a_wrong_scenario_is_told_with_line_and_field(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    place: str,
    words: str,
) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(text)
    assert played("--scenario", str(file), monkeypatch=monkeypatch) == program.REFUSED
    first, told = capsys.readouterr().err.splitlines()
    assert first == "headrace: nothing was simulated:"
    assert f"{file}{place}" in told
    assert words in told


def test_a_wrong_snapshot_says_what_was_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "now.json"
    file.write_text('{"jobs": 3}')
    assert played("--snapshot", str(file), monkeypatch=monkeypatch) == program.REFUSED
    told = capsys.readouterr().err
    assert f"{file}: jobs: " in told
    assert "wanted what `headrace snapshot -o FILE` of this version wrote" in told
    assert played("--snapshot", str(tmp_path / "none"), monkeypatch=monkeypatch) == 1
    assert f"{tmp_path / 'none'}: No such file" in capsys.readouterr().err


BORROWING = """
nodes: [{count: 2, accelerators: 4}]
queues:
  research: {quota: 2, borrow: 4}
  web: {quota: 6}
jobs:
- {name: eager, count: 8, minimum: 2, maximum: 2, queue: research, steps: 20000}
- {name: late, minimum: 4, maximum: 4, queue: web, steps: 100, arrivalSeconds: 7200}
"""


def test_queues_borrow_up_to_their_limit_and_give_back(tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(BORROWING)
    result = simulate(
        read(file, seed=1), policy="rubick", horizon=seconds(4 * 3600), policies=live_policies()
    )
    assert result.refused == ()
    held: dict[str, int] = {}
    seen = []
    for row in result.rows:
        if row.job:
            held[row.job] = row.accelerators
            eager = sum(count for job, count in held.items() if "eager" in job)
            seen.append((row.at, eager, held.get(JobUid("uid-late-0"), 0)))
    assert max(eager for _, eager, _ in seen) == 6
    assert max(late for _, _, late in seen) == 4
    assert all(eager <= 4 for _, eager, late in seen if late)


def test_a_quota_above_all_nodes_is_told_beside_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text("nodes: [{count: 1}]\nqueues:\n  a: {quota: 9}\n  b: {quota: 1}\n")
    arguments = ("--scenario", str(file), "--hours", "1", "--policy", "fifo")
    assert played(*arguments, monkeypatch=monkeypatch) == 0
    told = capsys.readouterr().out
    assert "- the quota of queue a is 9 accelerators and all nodes have 8: it limits" in told
    assert "not every queue can have its own at the same time" in " ".join(told.split())
    assert max(map(len, told.splitlines())) <= 80
