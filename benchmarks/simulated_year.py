"""How long it takes to simulate a year of a 2,048-accelerator cluster at Philly's rate.

    python benchmarks/simulated_year.py --data DIR [--policy fifo] [--days 365] [--csv]

Jobs arrive as Philly's did (the trace begins again when it is over), their models are drawn. What
is simulated is what ``headrace simulate`` does: the one loop, the same policy objects, the same
invariants. With fewer days than the target names, the time of the whole is guessed in proportion
to the jobs, and called a guess.
"""

import argparse
import csv
import gc
import os
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._processes import machine
from simulator.policies import policy_named
from simulator.run import simulate_to_the_end
from simulator.study import Study, scenario_for
from simulator.workloads.philly import Window
from simulator.workloads.trace_jobs import Cluster

BEGINS = datetime(2017, 9, 24, tzinfo=UTC)
"""The trace is thin before."""

PERIOD_SECONDS = 3600.0
"""Most time between two decisions if nothing happens."""

PROGRESS_SECONDS = 3600.0
"""So often a job that runs tells how far it is."""

JOBS_A_DAY = 82_247 / 105
"""Of the trace, over the 15 weeks after which it begins again; its October has twice as many."""

TARGETS = {"fifo": (365.0, 600.0), "rubick": (30.0, 1800.0)}
"""By policy: so many days within so many seconds."""

COLLECT_AFTER = (20_000, 20, 20)
"""How often Python looks for cycles of garbage, as in the control plane (its ``main.py``)."""


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        policy: Its name.
        days: How long jobs arrived.
        jobs: How many.
        cycles: Decisions.
        events: Events folded.
        wall_seconds: What the simulation took.
        cpu_seconds: The same of CPU time.
        events_per_second: Of CPU time.
        milliseconds_a_cycle: The same.
        utilisation: Share of the accelerators' time that was held.
        average_hours: Mean completion time.
    """

    policy: str
    days: float
    jobs: int
    cycles: int
    events: int
    wall_seconds: float
    cpu_seconds: float
    events_per_second: float
    milliseconds_a_cycle: float
    utilisation: float
    average_hours: float


def played(data: Path, policy: str, days: float, nodes: int, round_seconds: float) -> Row:
    """Simulates and measures it; to read the trace does not count."""
    study = Study(
        workload="philly",
        data=data,
        cluster=Cluster(nodes=nodes),
        window=Window(start=BEGINS, hours=24 * days),
        period_seconds=PERIOD_SECONDS,
    )
    scenario, table = scenario_for(study, seed=1)
    costs = scenario.costs.model_copy(update={"progressSeconds": PROGRESS_SECONDS})
    scenario = replace(scenario, costs=costs)
    decides = policy_named(policy, table, study.switch_seconds)
    shown = time.monotonic()

    def told(ended: int, _: object) -> None:
        nonlocal shown
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            print(f"  {ended} of {len(scenario.arrivals)} jobs", file=sys.stderr, flush=True)

    wall, cpu = time.perf_counter(), time.process_time()
    result = simulate_to_the_end(
        scenario,
        decides,
        name=policy,
        period_seconds=PERIOD_SECONDS,
        round_seconds=round_seconds,
        progress=told,
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if result.refused:
        raise SystemExit(f"a decision was refused: {result.refused[0]}")
    took = result.completion_seconds()
    return Row(
        policy,
        days,
        len(scenario.arrivals),
        result.cycles,
        result.events,
        round(wall, 2),
        round(cpu, 2),
        round(result.events / cpu, 1),
        round(1e3 * cpu / result.cycles, 3),
        round(result.utilisation, 4),
        round(sum(took) / len(took) / 3600, 3),
    )


def main() -> int:
    """Prints what was measured, and what follows for the target; 1 if that is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with rubick/ and traces/ (HEADRACE_DATA)")
    parser.add_argument("--policy", default="fifo", help="of those of headrace simulate")
    parser.add_argument("--days", type=float, help="how long jobs arrive (default: the target's)")
    parser.add_argument("--nodes", type=int, default=256, help="of 8 accelerators (default 256)")
    parser.add_argument(
        "--round-seconds",
        type=float,
        default=60.0,
        help="decisions are made so often at most (default 60, as in the artifact); 0: at once",
    )
    parser.add_argument("--csv", action="store_true", help="a line of CSV")
    args = parser.parse_args()
    data = args.data or Path(os.environ.get("HEADRACE_DATA", ""))
    if not (data / "traces" / "philly.csv").is_file():
        parser.error("--data: wanted the folder that holds traces/philly.csv and rubick/measured")
    days, limit = TARGETS.get(args.policy, (30.0, float("inf")))
    gc.set_threshold(*COLLECT_AFTER)
    row = played(data, args.policy, args.days or days, args.nodes, args.round_seconds)
    if args.csv:
        writer = csv.DictWriter(sys.stdout, [each.name for each in fields(Row)])
        writer.writeheader()
        writer.writerow(asdict(row))
        return 0
    print(machine())
    for name, value in asdict(row).items():
        print(f"{name:<22} {value}")
    whole, guess = row.cpu_seconds, ""
    if row.days < days:
        whole *= days * JOBS_A_DAY / row.jobs
        guess = f" (a guess from {row.days:g} days, in proportion to jobs)"
    print(
        f"target: {days:g} days under {args.policy} within {limit:g} s: "
        f"{whole:.0f} s of CPU{guess}: {'kept' if whole <= limit else 'missed'}"
    )
    return int(whole > limit)


if __name__ == "__main__":
    sys.exit(main())
