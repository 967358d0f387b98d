"""What is read from scenario and snapshot files, and how a wrong one is told."""

import sys
from pathlib import Path

import pytest

from simulator import __main__ as program
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


def test_nodes_of_a_scenario_share_racks_and_their_accelerators_islands(tmp_path: Path) -> None:
    file = tmp_path / "racks.yaml"
    file.write_text(
        "nodes:\n"
        "- {count: 3, accelerators: 4, nodesPerRack: 2, acceleratorsPerIsland: 2}\n"
        "- {labels: {headrace.dev/rack: own}}\n"
        "- {}\n"
    )
    nodes = read(file, seed=1).nodes
    assert [node.rack for node in nodes] == ["rack-0-0", "rack-0-0", "rack-0-1", "own", ""]
    assert [a.island for a in nodes[0].accelerators] == ["0", "0", "1", "1"]
    assert {a.island for a in nodes[3].accelerators} == {""}


WRONG = [
    (
        "nodes:\n- {nodesPerRack: 2, labels: {headrace.dev/rack: own}}",
        ":2: nodes[0]:",
        "nodesPerRack or the label headrace.dev/rack, got both",
    ),
    ("nodes:\n- {count: 4, acelerators: 8}", ":2: nodes[0].acelerators:", "mean accelerators?"),
    ("nodes:\n- count: 4\n  accelerators: 0", ":3: nodes[0].accelerators:", "wanted more than 0"),
    ("nodes: []\nfaults:\n  lateSeconds: soon", ":3: faults.lateSeconds:", 'a number, got "soon"'),
    ("jobs: []", ":1: nodes:", "is required"),
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
