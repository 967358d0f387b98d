"""``headrace simulate --workload``: the table, the JSON, the files and the report."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from simulator import __main__ as program
from simulator.report.page import page
from simulator.report.recorded import pieces, read_run, shares_over_time
from simulator.study import Study, play, play_all

HEAD = "exec_plan,placement,iter_time,forward,overlap_sync,optimize\n"
TABLE = f"{HEAD}ga,1,1.0,1,1,1\nga,2,0.6,1,1,1\nga,4,0.4,1,1,1\nzero-dp,8,0.2,1,1,1\n"
JOBS = (
    "name,submission_time,duration,application,num_gpus,num_cpus,bandwidth,exec_plan,steps,is_sla\n"
    "<b>a,0,0,bert,8,1,0,zero-dp,4000,0\n"
    "b,10,0,bert,4,1,0,ga,100,0\n"
    "c,20,0,bert,1,1,0,ga,700,0\n"
    "d,30,0,bert,2,1,0,ga,700,0\n"
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "rubick" / "measured" / "bert"
    folder.mkdir(parents=True)
    (folder / "placements.csv").write_text(TABLE)
    (tmp_path / "data" / "jobs.csv").write_text(JOBS)
    return tmp_path / "data"


def ran(data: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    command = ["simulator", "--workload", str(data / "jobs.csv"), "--data", str(data)]
    monkeypatch.setattr(sys, "argv", [*command, "--nodes", "1", *arguments])
    return program.main()


def test_the_table_compares_policies_in_eighty_columns(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status = ran(
        data,
        "--policy",
        "fifo,fifo-skip",
        "--switch-seconds",
        "0,78",
        "--guaranteed",
        "2",
        monkeypatch=monkeypatch,
    )
    assert status == 0
    told = capsys.readouterr().out
    lines = told.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:3] == ["S", "POLICY", "AVG"]
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["0", "fifo"],
        ["0", "fifo-skip"],
        ["78", "fifo"],
        ["78", "fifo-skip"],
    ]
    assert "every start and every change holds its accelerators 78 s" in told


def test_json_holds_every_run_with_what_it_took(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--policy", "fifo", "--seeds", "2", "--processes", "1", "-o", "json")
    assert ran(data, *arguments, monkeypatch=monkeypatch) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["policy"], row["seed"], row["finished"]) for row in rows] == [
        ("fifo", 1, 4),
        ("fifo", 2, 4),
    ]
    # 8 GPUs for 78 + 800 s; then 4, 1 and 2 at once: 78 + 40, 78 + 700 and 78 + 420 s.
    ends = [878.0, 878 + 118 - 10, 878 + 778 - 20, 878 + 498 - 30]
    assert rows[0]["jct_mean_seconds"] == pytest.approx(sum(ends) / 4)
    assert rows[0]["makespan_seconds"] == pytest.approx(878 + 778)
    assert rows[0]["events_per_second"] > 0


def test_processes_side_by_side_give_the_same_as_one(data: Path) -> None:
    study = Study(str(data / "jobs.csv"), data)
    told: list[float] = []
    side_by_side = list(
        play_all(study, ["fifo", "fifo-skip"], [1], processes=2, progress=told.append)
    )
    alone = [play(study, policy, 1) for policy in ("fifo", "fifo-skip")]
    assert [each.summary for each in side_by_side] == [each.summary for each in alone]
    assert all(0 <= share <= 1 for share in told)


WRONG = [
    (["--policy", "lottery"], "wanted policies of antman"),
    (["--from", "soon"], "--from: wanted a date"),
    (["--guaranteed", "9"], "wanted 0 to 4 guaranteed jobs, got 9"),
]


@pytest.mark.parametrize(("arguments", "told"), WRONG)
def test_what_cannot_be_played_is_told(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    if "--policy" not in arguments:
        arguments = [*arguments, "--policy", "fifo"]
    assert ran(data, *arguments, monkeypatch=monkeypatch) == program.REFUSED
    assert told in capsys.readouterr().err


OUT_OF_RANGE = [
    (["--load", "0"], "--load: wanted a number above 0, got '0'"),
    (["--hours", "-1"], "--hours: wanted a number above 0, got '-1'"),
    (["--hours", "nan"], "--hours: wanted a number above 0, got 'nan'"),
    (["--noise", "1"], "--noise: wanted a number from 0 to below 1, got '1'"),
    (["--stragglers", "2"], "--stragglers: wanted a number from 0 to 1, got '2'"),
    (["--failures-per-day", "-1"], "--failures-per-day: wanted a number from 0, got '-1'"),
    (["--period-seconds", "0"], "--period-seconds: wanted a number above 0"),
    (["--switch-seconds", "nan"], "--switch-seconds: wanted seconds such as 78"),
    (["--guaranteed", "-1"], "--guaranteed: wanted a whole number from 0, got '-1'"),
    (["--nodes", "0"], "--nodes: wanted 1 or more, got 0"),
    (["--scenario", "x.yaml"], "wanted --workload or --scenario, got both"),
]


@pytest.mark.parametrize(("arguments", "told"), OUT_OF_RANGE)
def test_an_option_out_of_range_is_a_wrong_command(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    with pytest.raises(SystemExit, match="2"):
        ran(data, *arguments, monkeypatch=monkeypatch)
    assert told in capsys.readouterr().err


def test_a_missing_data_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["simulator", "--workload", "base"]
    monkeypatch.setattr(sys, "argv", command)
    assert program.main() == program.REFUSED
    assert "--workload needs --data DIR" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*command, "--data", str(tmp_path)])
    assert program.main() == program.REFUSED
    assert f"{tmp_path / 'rubick' / 'measured'}: wanted a folder" in capsys.readouterr().err


# -- the report -------------------------------------------------------------------------------


class Checked(HTMLParser):
    """Knows which elements are open, and what refers to elsewhere."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elsewhere: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.elsewhere += [name for name, _ in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.elsewhere += [name for name, _ in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_folder_holds_each_run_and_a_report(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    arguments = ("--policy", "fifo,fifo-skip", "--processes", "1", "--output", str(folder))
    assert ran(data, *arguments, monkeypatch=monkeypatch) == 0
    assert f"written to {folder}" in capsys.readouterr().out
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    each = ("allocations.csv", "jobs.csv", "summary.json")
    assert files == sorted(
        [f"{p}-seed1/{name}" for p in ("fifo", "fifo-skip") for name in each]
        + ["report.html", "summary.json"]
    )
    html = (folder / "report.html").read_text()
    checked = Checked()
    checked.feed(html)
    assert checked.open == []
    assert checked.elsewhere == []
    assert not {"script", "link", "img", "iframe"} & checked.seen
    assert "http" not in re.sub(r"http-equiv", "", html)
    assert "&lt;b&gt;a" in html
    assert "<b>a" not in html
    again = page([read_run(folder / f"{policy}-seed1") for policy in ("fifo", "fifo-skip")])
    assert again == html


def test_the_picture_shows_what_the_log_says(data: Path, tmp_path: Path) -> None:
    played = play(Study(str(data / "jobs.csv"), data), "fifo", 1, tmp_path)
    assert played.folder is not None
    run = read_run(played.folder)
    drawn = list(pieces(run))
    held = sum((piece.end - piece.start) * len(piece.lanes) for piece in drawn)
    good = sum((piece.end - piece.start) * len(piece.lanes) for piece in drawn if piece.trains)
    whole = (run.end - run.start) * sum(run.nodes.values())
    assert held / whole == pytest.approx(played.summary.utilisation)
    assert good / whole == pytest.approx(played.summary.goodput)
    for one in drawn:
        for other in drawn:
            if one is not other and one.node == other.node and set(one.lanes) & set(other.lanes):
                assert one.end <= other.start or other.end <= one.start
    shares = shares_over_time(run, 50)
    assert sum(share for share, _ in shares) / 50 == pytest.approx(played.summary.utilisation)
    assert sum(share for _, share in shares) / 50 == pytest.approx(played.summary.goodput)
