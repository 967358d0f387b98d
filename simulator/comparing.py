"""``headrace simulate --workload``: policies compared on a trace of measured jobs."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from math import inf, isfinite, nan
from pathlib import Path
from statistics import fmean, stdev
from textwrap import wrap

from simulator.physics import UnknownPlacementError
from simulator.policies import POLICIES, policies_among
from simulator.progress_bar import progress_bar
from simulator.report.page import write_report
from simulator.results.summary import LONG_SECONDS, Summary
from simulator.scenario import Faults
from simulator.study import WORKLOADS, Played, Study, play_all
from simulator.virtual_cluster import StalledError
from simulator.workloads.philly import BUSIEST, Window
from simulator.workloads.synthetic import Synthetic
from simulator.workloads.trace_jobs import REPORT_SECONDS, SWITCH_SECONDS, Cluster

EXAMPLE = """\
headrace simulate --workload base --data ~/data --policy fifo,fifo-skip \\
  --switch-seconds 78 --output results
"""

_FORMATS = ("table", "json")

_COLUMNS = 80


def number(
    least: float, most: float = inf, *, without_least: bool = False, without_most: bool = False
) -> Callable[[str], float]:
    """What an option takes that is a number in a range.

    Args:
        least: The least that will do.
        most: The most.
        without_least: Whether the least itself will not do.
        without_most: Whether the most will not.
    """

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = nan
        low = value > least if without_least else value >= least
        high = value < most if without_most else value <= most
        if not (isfinite(value) and low and high):
            wanted = f"above {least:g}" if without_least else f"from {least:g}"
            if most != inf:
                wanted += f" to {'below ' if without_most else ''}{most:g}"
            raise argparse.ArgumentTypeError(f"wanted a number {wanted}, got {text!r}")
        return value

    return read


_ABOVE_0 = number(0, without_least=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a comparison."""
    group = parser.add_argument_group("comparing policies on a trace")
    group.add_argument(
        "--workload",
        metavar="NAME",
        help=f"{', '.join(WORKLOADS[:4])}, sia-philly-1..4, sia-newtrace-1..4, synthetic, or a CSV "
        "file like Rubick's",
    )
    group.add_argument("--data", type=Path, metavar="DIR", help="folder with rubick/ and traces/")
    group.add_argument("--seeds", type=_positive, default=1, metavar="N", help="seeds 1 to N")
    group.add_argument(
        "--switch-seconds",
        type=_numbers,
        default=(SWITCH_SECONDS,),
        metavar="S[,S]",
        help=f"what a start or a change takes (default {SWITCH_SECONDS:g}); several are swept",
    )
    group.add_argument("--nodes", type=_positive, default=8, help="of 8 accelerators (default 8)")
    group.add_argument(
        "--load", type=_ABOVE_0, default=1.0, help="jobs arrive so many times as fast"
    )
    group.add_argument(
        "--guaranteed", type=_whole, metavar="N", help="so many jobs are, from the seed"
    )
    group.add_argument(
        "--recorded", action="store_true", help="jobs run for as long as the trace recorded"
    )
    group.add_argument(
        "--from", dest="start", metavar="DATE", help="begin of Philly's window (UTC)"
    )
    group.add_argument("--jobs", type=_positive, help="of philly (default all) or synthetic")
    group.add_argument("--jobs-per-hour", type=_ABOVE_0, default=30.0, help="of synthetic")
    group.add_argument("--best-plans", action="store_true", help="drawn jobs ask for the fastest")
    group.add_argument(
        "--period-seconds", type=_ABOVE_0, default=60.0, help="between two decisions"
    )
    group.add_argument(
        "--report-seconds",
        type=_ABOVE_0,
        default=REPORT_SECONDS,
        help=f"how often a job tells how far it is (default {REPORT_SECONDS:g})",
    )
    group.add_argument(
        "--noise",
        type=number(0, 1, without_most=True),
        default=0.0,
        help="of step times; 0.05 for 5 %%",
    )
    group.add_argument(
        "--stragglers", type=number(0, 1), default=0.0, help="share of runs at half speed"
    )
    group.add_argument("--failures-per-day", type=number(0), default=0.0, help="of each run")
    group.add_argument("--node-losses-per-day", type=number(0), default=0.0, help="of each node")
    group.add_argument(
        "--processes",
        type=_positive,
        default=os.cpu_count() or 1,
        help="that play side by side (default all cores)",
    )


def compare(options: argparse.Namespace) -> int:
    """Plays what is asked for, prints and writes it. Returns 1 if a decision was refused.

    Raises:
        ValueError: What is asked for is not possible, or a file is wrong.
        OSError: A file cannot be read or written.
    """
    if options.data is None:
        raise ValueError("--workload needs --data DIR, a folder with rubick/ and traces/")
    policies = policies_among(options.policy or sorted(POLICIES))
    as_json = options.output == "json"
    folder = None if options.output in _FORMATS else Path(options.output)
    seeds = range(1, options.seeds + 1)
    played: list[tuple[float, Played]] = []
    for switch in options.switch_seconds:
        several = len(options.switch_seconds) > 1
        own = folder / f"switch-{switch:g}" if folder is not None and several else folder
        study = _study(options, switch)
        found = _shown(study, policies, seeds, own, options.processes)
        played += [(switch, each) for each in found]
        if own is not None:
            write_report(own, [each.folder for each in found if each.folder is not None])
    if as_json:
        sys.stdout.write(json.dumps([_told(*each) for each in played], indent=2) + "\n")
    else:
        sys.stdout.write(table(played))
        if folder is not None:
            sys.stdout.write(f"\nwritten to {folder}: open report.html\n")
    if folder is not None:
        text = json.dumps([_told(*each) for each in played], indent=2) + "\n"
        (folder / "summary.json").write_text(text, encoding="utf-8")
    return 1 if any(each.summary.refused for _, each in played) else 0


def _study(options: argparse.Namespace, switch_seconds: float) -> Study:
    faults = Faults(
        nodeLossesPerDay=options.node_losses_per_day,
        runFailuresPerDay=options.failures_per_day,
        stragglerShare=options.stragglers,
        stepNoise=options.noise,
    )
    return Study(
        workload=options.workload,
        data=options.data,
        cluster=Cluster(nodes=options.nodes),
        switch_seconds=switch_seconds,
        load=options.load,
        guaranteed=options.guaranteed,
        recorded=options.recorded,
        faults=faults,
        period_seconds=options.period_seconds,
        report_seconds=options.report_seconds,
        window=Window(_date(options.start), options.hours or 12.0, options.jobs),
        synthetic=Synthetic(options.jobs or 400, options.jobs_per_hour),
        random_plans=not options.best_plans,
    )


def _date(text: str | None) -> datetime:
    if text is None:
        return BUSIEST
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"--from: wanted a date like 2017-10-17T10:00, got {text!r}") from error


def _shown(
    study: Study,
    policies: Sequence[str],
    seeds: Sequence[int],
    folder: Path | None,
    processes: int,
) -> list[Played]:
    try:
        with progress_bar(f"{study.workload}, {study.switch_seconds:g} s a switch") as progress:
            return list(
                play_all(
                    study, policies, seeds, folder=folder, processes=processes, progress=progress
                )
            )
    except (UnknownPlacementError, StalledError) as error:
        raise ValueError(str(error)) from error


def _told(switch_seconds: float, played: Played) -> dict[str, object]:
    return {
        "switch_seconds": switch_seconds,
        **asdict(played.summary),
        "wall_seconds": round(played.wall_seconds, 3),
        "events_per_second": round(played.events_per_second, 1),
        "notes": list(played.notes),
    }


# -- table ------------------------------------------------------------------------------------


def table(played: Sequence[tuple[float, Played]]) -> str:
    """The comparison in at most 80 columns: a row for each policy and switch time, the mean of all
    seeds.
    """
    groups: dict[tuple[float, str], list[Played]] = {}
    for switch, each in played:
        groups.setdefault((switch, each.summary.policy), []).append(each)
    several = len({switch for switch, _ in groups}) > 1
    heads = ["POLICY", "AVG", "P50", "P99", "LONG", "SPAN", "HELD", "GOOD", "FAIR", "RECONF"]
    promises = any(each.summary.promises.jobs for _, each in played)
    cells = [["S", *heads] if several else heads]
    if promises:
        cells[0] = [*cells[0], "LATE"]
    for (switch, policy), group in groups.items():
        row = [policy, *_figures([each.summary for each in group], promises=promises)]
        cells.append([f"{switch:g}", *row] if several else row)
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    names = 2 if several else 1
    apart = "  " if sum(widths) + 2 * len(widths) - 2 <= _COLUMNS else " "
    lines = [
        apart.join(
            cell.ljust(width) if i < names else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([*lines, "", *_legend(played, promises=promises)]) + "\n"


def _figures(group: Sequence[Summary], *, promises: bool) -> list[str]:
    found = [
        _hours([one.jct_mean_seconds for one in group]),
        _hours([one.jct_p50_seconds for one in group]),
        _hours([one.jct_p99_seconds for one in group]),
        _hours([one.jct_mean_long_seconds for one in group]),
        _hours([one.makespan_seconds for one in group]),
        f"{fmean(one.utilisation for one in group):.1%}",
        f"{fmean(one.goodput for one in group):.1%}",
        f"{fmean(one.fairness or 0.0 for one in group):.2f}",
        f"{fmean(one.reconfigurations for one in group):.0f}",
    ]
    if promises:
        found.append(f"{fmean(one.promises.late for one in group):.0f}")
    return found


def _hours(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known) / 3600:.3f}" if known else "-"


def _legend(played: Sequence[tuple[float, Played]], *, promises: bool) -> Iterator[str]:
    seeds = sorted({each.summary.seed for _, each in played})
    yield "AVG, P50, P99: job completion times in hours; LONG: average of the jobs that"
    yield f"ask for more than {LONG_SECONDS / 60:g} minutes; SPAN: makespan; HELD, GOOD: share of"
    yield "accelerator time held, and making progress that lasted; FAIR: Jain's index of"
    yield "the jobs' speeds; RECONF: planned changes of number, place or plan"
    if promises:
        yield "LATE: guaranteed jobs that took longer than their request promises"
    if len(seeds) > 1:
        yield f"mean of {len(seeds)} seeds; standard deviation of the average JCT in hours: " + (
            ", ".join(_deviations(played))
        )
    for note in dict.fromkeys(note for _, each in played for note in each.notes):
        yield from wrap(f"- {note}", _COLUMNS, subsequent_indent="  ")
    for _, each in played:
        for sentence in each.summary.refused[:3]:
            yield f"REFUSED ({each.summary.policy}): {sentence}"


def _deviations(played: Sequence[tuple[float, Played]]) -> Iterator[str]:
    groups: dict[tuple[float, str], list[float]] = {}
    for switch, each in played:
        mean = each.summary.jct_mean_seconds
        if mean is not None:
            groups.setdefault((switch, each.summary.policy), []).append(mean / 3600)
    for (_, policy), values in groups.items():
        yield f"{policy} {stdev(values):.3f}" if len(values) > 1 else f"{policy} -"


def _positive(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"wanted 1 or more, got {text}")
    return value


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"wanted a whole number from 0, got {text!r}")
    return int(text)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or any(not isfinite(value) or value < 0 for value in values):
        raise argparse.ArgumentTypeError(f"wanted seconds such as 78 or 0,78,260, got {text!r}")
    return values
