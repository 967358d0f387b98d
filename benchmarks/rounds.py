"""How long one Rubick round takes, how far it may be from the best, and what others take.

    python benchmarks/rounds.py --data DIR [--csv] [--sizes 64/100,2048/1536] [--repeats 5]
        [--nodes-per-rack 8]

A round is measured when all jobs wait (the first one; ``cold`` is the very first call, with nothing
remembered) and when most of them have run for ten minutes (``steady``), alone and within a whole
cycle of the engine. Beside it, on the same jobs and worths:

* ``dealing``: what Rubick does for that: bound, prices and places;
* ``program``: which job gets which choice, as an integer program of Sia's shape (one choice a job,
  one limit a type, nothing of nodes), written down and solved by highspy to a gap of 0.1 %;
* ``pulp``: the same program written down by PuLP, solved by the same solver;
* ``greedy``: a round in the shape of Rubick's artifact (``slope_greedy.py``);
* ``refused``: a cycle where 10 jobs' targets break a rule, so that it is decided a second time
  without them; ``aside``: the next one, which does not ask about them;
* ``priced``: a steady round where a change in memory costs 2 s and a restart 30 s;
* ``search``: what a search beside the loop takes in the steady state, with 1,000 nodes of its tree
  at most; ``proposed`` is a round that takes what it found. Their gaps are to the bound that the
  search proves.

Jobs are of the artifact's models on one type (``a800``), or Sia-shaped on three types (``sia``);
``sia-u`` are these with Sia's own utility in place of Rubick's worth.
The machine may be shared, so CPU time is told beside wall time; ratios are of CPU time, to that of
``dealing``.
"""

import argparse
import csv
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pulp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._processes import machine
from benchmarks.round_worlds import POLICY, World, artifact_world, sia_shaped_world
from benchmarks.slope_greedy import Dealing
from controlplane.domain.event import CycleDecided
from controlplane.domain.ids import JobUid, NodeId, Term
from controlplane.domain.policy import Decision, Violation
from controlplane.domain.proposal import Proposal
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_times import StepTimes
from controlplane.domain.switch import SwitchKind
from controlplane.domain.switch_price import SwitchPrice
from controlplane.engine.cycle import Outcome, run_cycle
from controlplane.engine.state import ClusterState, SequencedEvent
from controlplane.placing.capacity import Capacity
from controlplane.placing.standing import Standings
from controlplane.rubick.board import Board
from controlplane.rubick.bound import upper_bound
from controlplane.rubick.policy import Rubick
from controlplane.rubick.round import Round
from controlplane.rubick.search import Program
from controlplane.rubick.seat import Seat, bidder_of
from controlplane.rubick.seating import Menu, Seats
from controlplane.rubick.settings import RubickSettings
from controlplane.rubick.worth import Worths
from simulator.measured_table import read_table

RELATIVE_GAP = 1e-3
REFUSED_JOBS = 10
TREE_NODES = 1_000_000
SEARCH_NODES = 1_000
LIMITS_MS = {"64/100": 10.0, "2048/1536": 200.0, "16384/10000": 2000.0}
MOST_FOR_PROGRAMS = 2_000
"""Jobs of the largest world for which programs are solved; they take minutes beyond."""
COLLECT_AFTER = (20_000, 20, 20)
"""How often Python looks for cycles of garbage, as in the control plane (its ``main.py``)."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        world: ``a800``, ``sia`` or ``sia-u``.
        size: Accelerators/jobs.
        what: Who decided, of which round.
        wall_ms: Median of the repeats.
        cpu_ms: The same of CPU time.
        ratio: CPU time in multiples of that of ``dealing``; None for Rubick itself.
        gap: By which share of the proven bound the worth may be too low; None if unknown.
        work_units: Nodes of the search tree that were looked at; None where nothing is searched.
    """

    world: str
    size: str
    what: str
    wall_ms: float
    cpu_ms: float
    ratio: float | None = None
    gap: float | None = None
    work_units: int | None = None


def timed(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median milliseconds of wall and CPU time."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append((time.perf_counter() - wall) * 1e3)
        cpus.append((time.process_time() - cpu) * 1e3)
    return statistics.median(walls), statistics.median(cpus)


def rows(
    name: str, size: str, world: World, times: StepTimes, repeats: int, programs: bool
) -> Iterator[Row]:
    """All measurements of one world."""
    policy = Rubick(lambda _: times)
    snapshot = world.state.snapshot(world.now)
    yield Row(name, size, "rubick cold", *timed(lambda: policy(snapshot), 1))
    yield from _rubick(name, size, world, policy, "first", repeats)
    if programs:
        seats, nodes = seats_of(world, times)
        yield from _others(name, size, seats, nodes, repeats)
        if name == "sia":
            yield from _others("sia-u", size, by_sias_utility(seats), nodes, repeats)
    world.starts(policy)
    yield from _rubick(name, size, world, policy, "steady", repeats)
    yield _priced(name, size, world, policy, repeats)
    yield from _searched(name, size, world, times, repeats)


def _priced(name: str, size: str, world: World, policy: Rubick, repeats: int) -> Row:
    """A steady round where changes of every model were seen, and restarts are the dearer ones."""
    snapshot = world.state.snapshot(world.now)
    models = {each.job.spec.model_type.partition(" ")[0] for each in snapshot.jobs.values()}
    seen = ((SwitchKind.MEMORY, 2.0), (SwitchKind.RESTART, 30.0))
    prices = {
        f"{model} {kind}": SwitchPrice(model, 1, 1, kind, 1, seconds, (seconds,))
        for model in models
        for kind, seconds in seen
    }
    priced = replace(snapshot, switch_prices=prices)
    found = policy(priced).optimality
    took = timed(lambda: policy(priced), repeats)
    return Row(name, size, "rubick priced", *took, gap=found.gap if found else None)


def _searched(name: str, size: str, world: World, times: StepTimes, repeats: int) -> Iterator[Row]:
    """A search beside the loop, and the round that takes what it found."""
    settings = RubickSettings(search_beside_nodes=SEARCH_NODES, search_beside_gain=0.0)
    policy = Rubick(lambda _: times, settings)
    snapshot, last = world.state.snapshot(world.now), world.state.last_sequence
    policy(snapshot)
    found: list[Proposal | None] = []
    took = timed(lambda: found.append(policy.search(snapshot, last, lambda: False)), 1)
    proposal = found[0]
    if proposal is None:
        yield Row(name, size, "search", *took)
        return
    gap = 1.0 - proposal.value / proposal.bound
    yield Row(name, size, "search", *took, gap=gap, work_units=proposal.work_units)
    told = replace(snapshot, proposal=proposal)
    best = policy(told).optimality
    again = timed(lambda: policy(told), repeats)
    gap = 1.0 - (best.value if best is not None else 0.0) / proposal.bound
    yield Row(name, size, "proposed", *again, gap=gap)


def _rubick(
    name: str, size: str, world: World, policy: Rubick, which: str, repeats: int
) -> Iterator[Row]:
    snapshot = world.state.snapshot(world.now)
    found = policy(snapshot).optimality
    took = timed(lambda: policy(snapshot), repeats)
    yield Row(name, size, f"rubick {which}", *took, gap=found.gap if found else None)

    def cycle() -> None:
        run_cycle(world.state, world.now, {POLICY: policy}, Term(1))

    yield Row(name, size, f"cycle {which}", *timed(cycle, repeats))
    if which == "first":
        yield from _refused(name, size, world, policy, repeats)


def _refused(name: str, size: str, world: World, policy: Rubick, repeats: int) -> Iterator[Row]:
    """A cycle that refuses what is decided about some jobs, and one where these are set aside."""
    odd = tuple(policy(world.state.snapshot(world.now)).targets)[:REFUSED_JOBS]
    wrong = {POLICY: _Blaming(policy, frozenset(odd))}
    outcomes: list[Outcome] = []

    def cycle(state: ClusterState) -> None:
        outcomes.append(run_cycle(state, world.now, wrong, Term(1)))

    yield Row(name, size, "cycle refused", *timed(lambda: cycle(world.state), repeats))
    refused = outcomes[-1].decided.refused
    assert {uid for uid, _ in refused} == set(odd), "each of them was refused"
    told = CycleDecided(Term(1), world.state.last_sequence, (), (), refused, at=world.now)
    then = world.state.fold([SequencedEvent(world.state.last_sequence, told)])
    yield Row(name, size, "cycle aside", *timed(lambda: cycle(then), repeats))
    assert not outcomes[-1].decided.refused, "nobody is asked about them"


@dataclass(frozen=True)
class _Blaming:
    """A policy of whose targets for some jobs that wait a rule is always broken."""

    policy: Rubick
    odd: frozenset[JobUid]

    def __call__(self, snapshot: ClusterSnapshot) -> Decision:
        return self.policy(snapshot)

    def violations(self, snapshot: ClusterSnapshot, decision: Decision) -> Iterator[Violation]:
        yield from self.policy.violations(snapshot, decision)
        for uid in self.odd & decision.targets.keys():
            yield Violation(f"{uid}: a rule is broken", (uid,))


def seats_of(world: World, times: StepTimes) -> tuple[Sequence[Seat], dict[str, list[int]]]:
    """What the first round decides about: jobs, and what each node has, by type."""
    snapshot = world.state.snapshot(world.now)
    now = Standings(snapshot, possible=lambda *_: True)
    menu = Menu()
    menu.begin(times, snapshot)
    seats = Seats(snapshot, now.jobs, now.empty, menu, RubickSettings()).every
    nodes = Capacity(snapshot).by_node()
    return seats, {kind: list(counts.values()) for kind, counts in nodes.items()}


def by_sias_utility(seats: Sequence[Seat]) -> list[Seat]:
    """The same jobs, every choice worth what it is to Sia: ``1.1 - G ** -0.5``, ``G`` the goodput
    in multiples of the job's least.
    """
    found = []
    for seat in seats:
        seconds = seat.choices.seconds
        worth = 1.1 - (seconds.max(initial=0.0) / seconds) ** -0.5
        utility = Worths(worth, -np.inf, 0.0, 1.0, 1.0)
        found.append(replace(seat, worths=utility))
    return found


def _others(
    name: str, size: str, seats: Sequence[Seat], nodes: dict[str, list[int]], repeats: int
) -> Iterator[Row]:
    """Rubick's dealing alone, and what others take to deal the same."""
    bidders = [bidder_of(seat) for seat in seats]
    # Sia knows no nodes in its program: all accelerators of a type are one limit.
    pooled = {kind: [1] * sum(counts) for kind, counts in nodes.items()}
    limits = {kind: len(every) for kind, every in pooled.items()}
    bound = upper_bound(bidders, limits)
    values: list[float] = []

    def dealing() -> None:
        free = {
            kind: {NodeId(f"{kind}-{i}"): count for i, count in enumerate(counts)}
            for kind, counts in nodes.items()
        }
        fresh = [replace(seat, given=None) for seat in seats]
        prices = upper_bound(bidders, limits).prices
        dealt = Round(fresh, Board(free), RubickSettings(), {}, prices)
        dealt.deal()
        values.append(dealt.worth())

    def program() -> None:
        written = Program(bidders, [()] * len(bidders), pooled)
        values.append(written.solved(TREE_NODES, None, RELATIVE_GAP).value)

    def modelled() -> None:
        values.append(by_pulp(seats, limits))

    def greedy() -> None:
        Dealing(seats, [count for counts in nodes.values() for count in counts]).deal()

    own = timed(dealing, repeats)
    yield Row(name, size, "dealing", *own, gap=1.0 - values[-1] / bound.value)
    for what, work in (("program", program), ("pulp", modelled)):
        wall, cpu = timed(work, 1)
        yield Row(name, size, what, wall, cpu, cpu / own[1], 1.0 - values[-1] / bound.value)
    if len(nodes) == 1:
        wall, cpu = timed(greedy, 1)
        yield Row(name, size, "greedy", wall, cpu, cpu / own[1])


def by_pulp(seats: Sequence[Seat], limits: dict[str, int]) -> float:
    """The program as PuLP writes it down: at most one choice a job, one limit a type."""
    program = pulp.LpProblem("round", pulp.LpMaximize)
    value, used = [], {kind: [] for kind in limits}  # type: ignore[var-annotated]
    for seat in seats:
        taken = []
        for i, choice in enumerate(seat.choices.every):
            worth = float(seat.worths.of_choices[i])
            if worth > 0.0:
                x = program.add_variable(f"x_{seat.number}_{i}", cat="Binary")
                taken.append(x)
                value.append(worth * x)
                used[choice.kind].append(choice.accelerators * x)
        if taken:
            program += pulp.lpSum(taken) <= 1
    program += pulp.lpSum(value)
    for kind, limit in limits.items():
        program += pulp.lpSum(used[kind]) <= limit
    with silent():
        program.solve(pulp.HiGHS(msg=False, threads=1, gapRel=RELATIVE_GAP))
    return float(pulp.value(program.objective) or 0.0)


@contextmanager
def silent() -> Iterator[None]:
    """HiGHS announces itself on standard output when PuLP makes it."""
    sys.stdout.flush()
    kept_open = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept_open, 1)
        os.close(nowhere)
        os.close(kept_open)


def told(row: Row) -> str:
    """As a line of the table."""
    ratio = f"{row.ratio:8.1f}x" if row.ratio is not None else " " * 9
    gap = f"{row.gap:7.2%}" if row.gap is not None else " " * 7
    units = f"{row.work_units:>6} nodes" if row.work_units is not None else ""
    return (
        f"{row.world:<5} {row.size:<12} {row.what:<14} "
        f"{row.wall_ms:10.1f} {row.cpu_ms:10.1f} {ratio} {gap} {units}"
    )


def kept(every: Sequence[Row]) -> bool:
    """Prints the targets; whether all are kept, by CPU time."""
    good = True
    for row in every:
        limit = LIMITS_MS.get(row.size)
        if (
            row.world != "a800"
            or limit is None
            or row.what not in ("rubick first", "rubick steady", "rubick priced")
        ):
            continue
        in_time = row.cpu_ms <= limit
        near = row.size != "2048/1536" or (row.gap or 0.0) <= 0.02
        good &= in_time and near
        print(
            f"target {row.size} {row.what}: at most {limit:g} ms: {row.cpu_ms:.1f}, "
            f"gap {row.gap or 0.0:.2%}: {'kept' if in_time and near else 'missed'}"
        )
    return good


def main() -> int:
    """Prints a table or CSV; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with rubick/measured (HEADRACE_DATA)")
    parser.add_argument("--csv", action="store_true", help="lines of CSV instead of a table")
    parser.add_argument("--sizes", default=",".join(LIMITS_MS), help="accelerators/jobs, by commas")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes-per-rack", type=int, default=0, help="0 if no rack is told")
    parser.add_argument("--only-rubick", action="store_true", help="nobody else is measured")
    args = parser.parse_args()
    data = args.data or (
        Path(os.environ["HEADRACE_DATA"]) if "HEADRACE_DATA" in os.environ else None
    )
    if data is None or not (data / "rubick" / "measured").is_dir():
        parser.error("--data: wanted the folder that holds rubick/measured (step times)")
    table = read_table(data / "rubick" / "measured")
    gc.set_threshold(*COLLECT_AFTER)
    writer = csv.DictWriter(sys.stdout, [each.name for each in fields(Row)])
    if args.csv:
        writer.writeheader()
    else:
        print(machine())
        print(
            f"{'jobs':<5} {'size':<12} {'what':<14} {'wall ms':>10} {'cpu ms':>10}    ratio     gap"
        )
    every: list[Row] = []
    for size in args.sizes.split(","):
        accelerators, jobs = map(int, size.split("/"))
        programs = not args.only_rubick and jobs <= MOST_FOR_PROGRAMS
        racks = args.nodes_per_rack
        artifact = artifact_world(table, accelerators, jobs, args.seed, racks)
        sia, times = sia_shaped_world(accelerators, jobs, args.seed, racks)
        for name, world, step_times in (("a800", artifact, table), ("sia", sia, times)):
            for row in rows(name, size, world, step_times, args.repeats, programs):
                every.append(row)
                if args.csv:
                    writer.writerow(asdict(row))
                else:
                    print(told(row), flush=True)
    return 0 if args.csv or kept(every) else 1


if __name__ == "__main__":
    sys.exit(main())
