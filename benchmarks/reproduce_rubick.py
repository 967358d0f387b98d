"""Plays Rubick and the policies beside it on the artifact's workloads, and writes what came of it
into docs/systems/rubick.md, between the marks there.

    python benchmarks/reproduce_rubick.py --data DIR [--only NAME ...] [--processes 2]

DIR holds ``rubick/`` and ``traces/``. Same data, same figures: all chance comes from seeds. About a
quarter of an hour on two cores.
"""

import argparse
import csv
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._pages import put, table
from benchmarks.rubick_curves import Line, curves
from simulator.results.floors import floors_of
from simulator.results.summary import Summary
from simulator.study import Played, Study, play_all, scenario_for
from simulator.workloads.philly import Window
from simulator.workloads.trace_jobs import Cluster

PAGE = Path(__file__).resolve().parent.parent / "docs" / "systems" / "rubick.md"
FIGURES = PAGE.parent / "rubick"
HOUR = 3600.0
SWITCHES = (3.0, 10.0, 78.0, 260.0)
LOADS = (0.5, 0.75, 1.0, 1.25, 1.5)
SEEDS = (1, 2, 3, 4, 5)
GUARANTEED = 194
EVERYBODY = (
    "rubick",
    "rubick-e",
    "rubick-r",
    "rubick-n",
    "sia",
    "sia-dp3d",
    "equal-share",
    "synergy",
    "antman",
    "fifo-skip",
    "fifo",
)
COMPARED = ("rubick", "sia", "equal-share", "fifo-skip")

ENDLESS = {(260.0, "rubick-no-gate")}
"""Switch and policy under which some jobs never end: after 402 of 406, two of the others displace
each other as soon as they have switched, 1,900 times by the 294th hour, and are stopped there."""

WINDOWS = ("2017-10-03", "2017-11-07")
"""Days of Philly's trace."""

PHILLY_NODES = 64

Section = Callable[[Study, int], str]


def main() -> None:
    """Plays and writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with rubick/ and traces/")
    parser.add_argument("--only", nargs="+", choices=sorted(SECTIONS), help="these sections")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    FIGURES.mkdir(parents=True, exist_ok=True)
    study = Study("base", options.data)
    for name in options.only or SECTIONS:
        sys.stderr.write(f"{name} ...\n")
        written = SECTIONS[name](study, options.processes)
        sys.stdout.write(f"{written}\n")
        put(PAGE, name, written)


# -- playing ----------------------------------------------------------------------------------


def _played(
    study: Study, policies: Sequence[str], seeds: Sequence[int], processes: int
) -> dict[str, list[Played]]:
    found: dict[str, list[Played]] = {}
    for one in play_all(study, policies, seeds, processes=processes):
        summary = one.summary
        if summary.refused or summary.finished != summary.jobs:
            raise SystemExit(f"{summary.policy}: {summary.refused[:1] or 'jobs did not finish'}")
        found.setdefault(summary.policy, []).append(one)
    return found


def _mean(values: Sequence[float | None]) -> float:
    return fmean(value for value in values if value is not None)


def _hours(values: Sequence[float | None]) -> str:
    told = [value / HOUR for value in values if value is not None]
    if not told:
        return "-"
    spread = f" ({min(told):.3f} to {max(told):.3f})" if len(told) > 1 else ""
    return f"{fmean(told):.3f}{spread}"


# -- sections ---------------------------------------------------------------------------------


def _policies(study: Study, processes: int) -> str:
    """Every policy on one workload."""
    found = _played(study, EVERYBODY, (1,), processes)
    floor = floors_of(scenario_for(study, 1)[0], study.switch_seconds)
    rows = []
    for name, (one,) in found.items():
        s = one.summary
        above = (s.jct_mean_seconds or 0.0) / floor.jct_mean_seconds
        rows.append(
            [
                f"**{name}**" if name == "rubick" else name,
                _hours([s.jct_mean_seconds]),
                f"{above:.2f}",
                _hours([s.jct_p50_seconds]),
                _hours([s.jct_p99_seconds]),
                f"{s.makespan_seconds / HOUR:.2f}",
                f"{s.utilisation:.0%}",
                f"{s.goodput:.0%}",
                f"{s.fairness or 0.0:.2f}",
                str(s.reconfigurations),
            ]
        )
    _write_csv("policies.csv", [one.summary for (one,) in found.values()])
    head = ["policy", "average JCT, h", "times the floor", "median", "P99", "makespan, h"]
    head += ["held", "useful", "fair", "changes"]
    told = (
        f"No schedule has an average JCT below {floor.jct_mean_seconds / HOUR:.4f} h or a makespan "
        f"below {floor.makespan_seconds / HOUR:.2f} h (formulas above)."
    )
    assumed = dict.fromkeys(note for (one,) in found.values() for note in one.notes)
    return "\n\n".join([table(head, rows), told, "\n".join(f"- {note}" for note in assumed)])


def _switches(study: Study, processes: int) -> str:
    """What a switch costs, varied."""
    lines: dict[str, list[tuple[float, float]]] = {}
    rows, summaries = [], []
    floors: list[tuple[float, float]] = []
    for switch in SWITCHES:
        at = replace(study, switch_seconds=switch)
        floor = floors_of(scenario_for(at, 1)[0], switch)
        floors.append((switch, floor.jct_mean_seconds / HOUR))
        for name, (one,) in _played(at, COMPARED, (1,), processes).items():
            s = one.summary
            summaries.append(s)
            lines.setdefault(name, []).append((switch, (s.jct_mean_seconds or 0.0) / HOUR))
            rows.append(
                [
                    f"{switch:g}",
                    name,
                    _hours([s.jct_mean_seconds]),
                    _hours([s.jct_p99_seconds]),
                    f"{s.makespan_seconds / HOUR:.2f}",
                    str(s.reconfigurations),
                ]
            )
    _write_csv("switches.csv", summaries)
    lines["floor"] = floors
    _draw("switches.svg", lines, "seconds of a start or change", "average JCT (h)")
    head = ["switch, s", "policy", "average JCT, h", "P99, h", "makespan, h", "changes"]
    return f"{table(head, rows)}\n\n![Average JCT by the price of a switch](rubick/switches.svg)"


def _load(study: Study, processes: int) -> str:
    """How fast jobs arrive, varied."""
    lines: dict[str, list[tuple[float, float]]] = {}
    rows = []
    for load in LOADS:
        found = _played(replace(study, load=load), COMPARED, (1,), processes)
        ours = found["rubick"][0].summary.jct_mean_seconds or 1.0
        row = [f"{load:g}"]
        for name in COMPARED:
            mean = found[name][0].summary.jct_mean_seconds or 0.0
            lines.setdefault(name, []).append((load, mean / HOUR))
            row.append(
                f"{mean / HOUR:.3f}" + ("" if name == "rubick" else f" ({mean / ours:.1f}x)")
            )
        rows.append(row)
    _draw("load.svg", lines, "the rate of arrivals", "average JCT (h)")
    head = ["load", *(f"{name}, h" for name in COMPARED)]
    return f"{table(head, rows)}\n\n![Average JCT by load](rubick/load.svg)"


def _mix(study: Study, processes: int) -> str:
    """The same jobs asking for other plans."""
    found = _played(replace(study, workload="bp"), COMPARED, (1,), processes)
    ours = found["rubick"][0].summary.jct_mean_seconds or 1.0
    rows = []
    for name in COMPARED:
        s = found[name][0].summary
        mean = s.jct_mean_seconds or 0.0
        rows.append([name, _hours([mean]), f"{mean / ours:.2f}", _hours([s.jct_p99_seconds])])
    return table(["policy", "average JCT, h", "times rubick's", "P99, h"], rows)


def _philly(study: Study, processes: int) -> str:
    """Days of another cluster, whose models are drawn."""
    rows = []
    for day in WINDOWS:
        window = Window(start=datetime.fromisoformat(day).replace(tzinfo=UTC), hours=24.0)
        cluster = Cluster(nodes=PHILLY_NODES)
        at = replace(study, workload="philly", window=window, cluster=cluster)
        found = _played(at, COMPARED, (1,), processes)
        ours = found["rubick"][0].summary.jct_mean_seconds or 0.0
        for name, (one,) in found.items():
            s = one.summary
            mean = s.jct_mean_seconds or 0.0
            rows.append(
                [
                    day,
                    str(s.jobs),
                    name,
                    _hours([mean]),
                    f"{mean / ours:.2f}",
                    _hours([s.jct_p99_seconds]),
                    f"{s.utilisation:.0%}",
                    str(s.reconfigurations),
                ]
            )
    head = ["day", "jobs", "policy", "average JCT, h", "times rubick's", "P99, h", "held"]
    return table([*head, "changes"], rows)


def _promises(study: Study, processes: int) -> str:
    """Two tenants, one of them guaranteed."""
    at = replace(study, guaranteed=GUARANTEED)
    found = _played(at, ("rubick", "antman", "fifo-skip"), SEEDS, processes)
    rows = []
    for name, every in found.items():
        promises = [one.summary.promises for one in every]
        rows.append(
            [
                name,
                _hours([one.summary.jct_mean_seconds for one in every]),
                _hours([one.summary.jct_mean_guaranteed_seconds for one in every]),
                _hours([one.summary.jct_mean_best_effort_seconds for one in every]),
                str(sum(each.predicted for each in promises)),
                f"{sum(each.late for each in promises)} of {sum(each.jobs for each in promises)}",
                f"{_mean([each.late_mean for each in promises]):.0%}",
                f"{max(each.late_worst for each in promises):.0%}",
            ]
        )
    head = ["policy", "average JCT, h (5 seeds)", "guaranteed, h", "best effort, h"]
    head += ["slower than promised, by prediction", "later, switches and waits included"]
    head += ["by, mean", "at most"]
    return table(head, rows)


def _gates(study: Study, processes: int) -> str:
    """What keeps the cluster calm, against nothing and against a fixed number of changes."""
    rows = []
    for switch in (10.0, 78.0, 260.0):
        at = replace(study, switch_seconds=switch)
        names = ("rubick", "rubick-no-gate", "rubick-5-changes")
        ending = [name for name in names if (switch, name) not in ENDLESS]
        played = _played(at, ending, (1,), processes)
        for name in names:
            if name not in played:
                rows.append([f"{switch:g}", name, "does not end", "", "", "", ""])
                continue
            s = played[name][0].summary
            rows.append(
                [
                    f"{switch:g}",
                    name,
                    _hours([s.jct_mean_seconds]),
                    _hours([s.jct_p99_seconds]),
                    f"{s.makespan_seconds / HOUR:.2f}",
                    str(s.reconfigurations),
                    f"{s.reconfiguration_share:.1%}",
                ]
            )
    head = ["switch, s", "policy", "average JCT, h", "P99, h", "makespan, h", "changes"]
    return table([*head, "of held time"], rows)


SECTIONS: Mapping[str, Section] = {
    "policies": _policies,
    "switches": _switches,
    "load": _load,
    "mix": _mix,
    "philly": _philly,
    "promises": _promises,
    "gates": _gates,
}


# -- files ------------------------------------------------------------------------------------


def _write_csv(name: str, summaries: Sequence[Summary]) -> None:
    columns = ["policy", "seed", "jobs", "jct_mean_seconds", "jct_p50_seconds", "jct_p99_seconds"]
    columns += ["makespan_seconds", "utilisation", "goodput", "reconfigurations"]
    columns += ["decisions_sha256"]
    with (FIGURES / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([getattr(s, column) for column in columns] for s in summaries)


def _draw(
    name: str, lines: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str
) -> None:
    drawn = curves([Line(label, tuple(points)) for label, points in lines.items()], across, up)
    (FIGURES / name).write_text(drawn, encoding="utf-8")


def marks(page: str) -> Iterator[str]:
    """The names of the marks in a page."""
    yield from re.findall(r"<!-- ([a-z]+) -->", page)


if __name__ == "__main__":
    main()
