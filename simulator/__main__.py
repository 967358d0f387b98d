"""``python -m simulator``: a scenario, a trace, or a live cluster's snapshot, in virtual time."""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

from controlplane.domain.clock import Instant, seconds
from controlplane.domain.lifecycle import Stage
from controlplane.domain.policy import Policy
from controlplane.live import live_policies
from simulator import comparing
from simulator.policies import POLICIES
from simulator.run import Result, simulate
from simulator.scenario import Scenario, read
from simulator.snapshots import latest, read_snapshot

EXAMPLE = """\
nodes:
- {count: 4, accelerators: 8}
jobs:
- {name: small, count: 20, everySeconds: 600, maximum: 4, steps: 5000}
- {name: large, minimum: 16, maximum: 32, steps: 20000, arrivalSeconds: 3600}
faults: {nodeLossesPerDay: 1}
"""


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


_HELP = f"""\
A snapshot is what `headrace snapshot -o FILE` wrote: what would become of the
jobs of that cluster?

  headrace snapshot -o now.json
  headrace simulate --snapshot now.json --hours 2

A scenario is a YAML file that says which nodes there are, which jobs arrive and
what goes wrong; durations are seconds of virtual time. This one is whole, and
examples/scenarios has a longer one:

{_indented(EXAMPLE)}
  headrace simulate --scenario week.yaml --hours 168 --policy fifo

A workload is a trace of jobs whose step times were measured, played until all
have ended: policies are compared, and who held what, when, is written down.

{_indented(comparing.EXAMPLE)}"""

_COLUMNS = 80

REFUSED = 4
"""What `headrace` ends with where a manifest is wrong."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headrace simulate",
        description="Plays a scenario, a trace, or a live cluster's snapshot, in virtual time.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--scenario", type=Path, metavar="FILE", help="YAML file with nodes, jobs and faults"
    )
    parser.add_argument(
        "--snapshot", type=Path, metavar="FILE", help="file written by `headrace snapshot`"
    )
    parser.add_argument(
        "--policy",
        action="append",
        metavar="NAME[,NAME]",
        help=f"repeatable (default all): {', '.join(sorted(live_policies()))}; with --workload "
        f"{', '.join(sorted(POLICIES))}",
    )
    parser.add_argument("--seed", type=int, default=1, help="all chance comes from it (default 1)")
    parser.add_argument(
        "--hours",
        type=comparing.number(0, without_least=True),
        help="virtual hours (default 24), or of Philly's trace (default 12)",
    )
    parser.add_argument(
        "-o",
        "--output",
        default="table",
        metavar="WHERE",
        help="table, json, or with --workload a folder for everything (default table)",
    )
    comparing.add_arguments(parser)
    return parser


def main() -> int:
    """Parses arguments, plays, prints. Returns the exit code."""
    parser = _parser()
    options = parser.parse_args()
    if options.workload is None and options.scenario is None and options.snapshot is None:
        parser.error(
            "wanted --workload NAME, --scenario FILE or --snapshot FILE, got none of them; --help "
            "has examples"
        )
    if options.workload is not None and (options.scenario or options.snapshot):
        other = "--scenario" if options.scenario else "--snapshot"
        parser.error(f"wanted --workload or {other}, got both: a workload has nodes of its own")
    try:
        if options.workload is not None:
            return comparing.compare(options)
        known = live_policies()
        policies = _policies(options.policy, options.output, known)
        scenario = _scenario(options.scenario, options.seed)
        start = None if options.snapshot is None else read_snapshot(options.snapshot)
    except OSError as error:
        sys.stderr.write(f"headrace: {error.filename}: {error.strerror}\n")
        return 1
    except ValueError as error:
        sys.stderr.write(f"headrace: nothing was simulated:\n{_indented(str(error))}")
        return REFUSED
    rows = []
    for policy in policies:
        result = simulate(
            scenario,
            policy=policy,
            horizon=seconds((options.hours or 24.0) * 3600),
            start=start,
            start_at=Instant(0) if start is None else latest(start),
            policies=known,
        )
        rows.append(_row(policy, result))
    if options.output == "json":
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        sys.stdout.write(_table(rows, scenario.notes))
    return 1 if any(row["refused"] for row in rows) else 0


def _policies(asked: Sequence[str] | None, output: str, known: Mapping[str, Policy]) -> list[str]:
    """The policies to play a scenario with.

    Raises:
        ValueError: There is no such policy, or no such output.
    """
    if output not in ("table", "json"):
        raise ValueError(f"--output: wanted table or json without --workload, got {output}")
    names = [name for text in asked or sorted(known) for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ValueError(f"--policy: wanted {', '.join(sorted(known))}, got {name}")
    return names


def _scenario(path: Path | None, seed: int) -> Scenario:
    return Scenario(seed, (), ()) if path is None else read(path, seed)


def _row(policy: str, result: Result) -> dict[str, object]:
    times = result.completion_seconds()
    records = result.jobs.values()
    return {
        "policy": policy,
        "jobs": len(result.jobs),
        "succeeded": len(times),
        "failed": sum(record.stage is Stage.FAILED for record in records),
        "jct_mean_s": round(statistics.fmean(times), 1) if times else None,
        "jct_p99_s": round(times[min(len(times) - 1, int(len(times) * 0.99))], 1)
        if times
        else None,
        "utilisation": round(result.utilisation, 4),
        "reconfigurations": sum(record.reconfigurations for record in records),
        "cycles": result.cycles,
        "refused": list(result.refused),
        "decisions_sha256": result.decisions_hash,
    }


def _table(rows: list[dict[str, object]], notes: Sequence[str]) -> str:
    heads = {
        "policy": "POLICY",
        "jobs": "JOBS",
        "succeeded": "DONE",
        "failed": "FAILED",
        "jct_mean_s": "MEAN JCT",
        "jct_p99_s": "P99 JCT",
        "utilisation": "HELD",
        "reconfigurations": "RECONF",
    }
    cells = [list(heads.values())]
    for row in rows:
        shown = dict(row)
        shown["utilisation"] = f"{float(str(row['utilisation'])):.1%}"
        for key in ("jct_mean_s", "jct_p99_s"):
            shown[key] = "-" if row[key] is None else f"{float(str(row[key])):.0f} s"
        cells.append([str(shown[key]) for key in heads])
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in cells]
    told = [line for each in notes for line in wrap(f"- {each}", _COLUMNS, subsequent_indent="  ")]
    hashes = [f"{row['policy']}: decisions {str(row['decisions_sha256'])[:16]}" for row in rows]
    return "\n".join(line.rstrip() for line in [*lines, "", *told, *hashes]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
