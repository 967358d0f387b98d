"""How long one cycle takes with 10,000 jobs on 2,000 nodes of 8 accelerators each.

Measured is all that the loop does between two waits but I/O: fold what came, decide (snapshot,
holders, duties, policy, difference, invariants), fold the decision, look for the next due time.

    python benchmarks/cycle.py [--jobs 10000] [--nodes 2000] [--rounds 30]
"""

import argparse
import gc
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from controlplane.baselines import BASELINES
from controlplane.domain.clock import Instant, after, seconds
from controlplane.domain.event import (
    Event,
    JobProgressed,
    JobSubmitted,
    NodeRegistered,
    PolicyChanged,
    UnitExited,
    UnitStarted,
)
from controlplane.domain.ids import AcceleratorId, JobUid, NodeId, SequenceNumber, Term
from controlplane.domain.job import AcceleratorRequest, Job, JobSpec
from controlplane.domain.node import Accelerator, Node
from controlplane.domain.policy import PolicySettings
from controlplane.domain.queue import DEFAULT_QUEUE
from controlplane.domain.record import Intent, Outcome, Progress, UnitExit
from controlplane.engine.cycle import run_cycle
from controlplane.engine.duties import next_due
from controlplane.engine.state import ClusterState, SequencedEvent

ACCELERATORS_A_NODE = 8
SIZES = (1, 2, 4, 8, 8, 16, 32)
LIMIT_MS = 50.0
COLLECT_AFTER = (20_000, 20, 20)
"""How often Python looks for cycles of garbage, as in the control plane (its ``main.py``)."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of each round."""

    wall: list[float]
    cpu: list[float]


class Cluster:
    """A full cluster with a long queue, played by agents that do at once what they are told."""

    def __init__(self, policy: str, jobs: int, nodes: int) -> None:
        self.luck = random.Random(7)
        self.now = Instant(seconds(1_000_000))
        self.sequence = 0
        self.state = ClusterState.empty()
        self.made = 0
        self.fold([PolicyChanged(PolicySettings(policy=policy))])
        self.fold([NodeRegistered(_node(i)) for i in range(nodes)])
        self.fold(self.new_jobs(jobs))

    def new_jobs(self, count: int) -> list[Event]:
        """Jobs of mixed sizes, the half of them elastic."""
        events: list[Event] = []
        for _ in range(count):
            self.made += 1
            size = self.luck.choice(SIZES)
            request = AcceleratorRequest(size, size * self.luck.choice((1, 2)), type="gpu")
            spec = JobSpec(
                queue=DEFAULT_QUEUE,
                accelerators=request,
                priority=self.luck.choice((0, 0, 0, 1)),
                global_batch_size=512,
                steps=1000,
            )
            uid = JobUid(f"job-{self.made}")
            events.append(JobSubmitted(Job(uid, "default", uid, 1, spec)))
        return events

    def numbered(self, events: Sequence[Event]) -> list[SequencedEvent]:
        """What happened, as it comes out of the log."""
        first = self.sequence + 1
        self.sequence += len(events)
        return [
            SequencedEvent(SequenceNumber(number), replace(event, at=self.now))
            for number, event in enumerate(events, first)
        ]

    def fold(self, events: Sequence[Event]) -> None:
        """Numbers and folds what happened."""
        self.state = self.state.fold(self.numbered(events))

    def decide(self) -> int:
        """One cycle with all that belongs to it; the number of actions."""
        outcome = run_cycle(self.state, self.now, BASELINES, Term(1))
        if outcome.refused:
            raise SystemExit(f"the policy was refused: {outcome.refused[0]}")
        if not outcome.changes_nothing:
            self.fold([outcome.decided])
        next_due(self.state, self.now)
        return len(outcome.decided.actions)

    def follow(self) -> list[Event]:
        """What agents say who do at once what they are told."""
        events: list[Event] = []
        for uid, record in self.state.jobs.items():
            attempt = record.attempt
            if attempt is None:
                continue
            if attempt.intent is Intent.RUN and not attempt.trained:
                units = attempt.placement.units
                events += [UnitStarted(uid, attempt.number, unit.index) for unit in units]
                events.append(JobProgressed(uid, attempt.number, Progress(1, 0, 1.0, 1.0)))
            elif attempt.intent is not Intent.RUN:
                events += self.leave(uid, Outcome.STOPPED)
        return events

    def leave(self, uid: JobUid, outcome: Outcome) -> list[Event]:
        """The job's units exit."""
        attempt = self.state.jobs[uid].attempt
        if attempt is None:
            return []
        return [
            UnitExited(uid, attempt.number, UnitExit(unit.index, outcome), unit.node)
            for unit in attempt.placement.units
        ]

    def settle(self) -> None:
        """Until nothing is ordered any more."""
        for _ in range(20):
            if not self.decide():
                return
            self.fold(self.follow())
        raise SystemExit("the cluster does not come to rest")

    def one_in_a_hundred_changes(self) -> list[Event]:
        """Half of them finish and half of them are new; running jobs report a step."""
        count = max(1, len(self.state.jobs) // 200)
        running = [uid for uid, record in self.state.jobs.items() if record.attempt is not None]
        events = self.follow()
        for uid in self.luck.sample(running, min(count, len(running))):
            events += self.leave(uid, Outcome.SUCCEEDED)
        return events + self.new_jobs(count)


def _node(index: int) -> Node:
    accelerators = tuple(
        Accelerator(AcceleratorId(f"GPU-{index}-{i}"), "gpu", cpu_cores=(i,))
        for i in range(ACCELERATORS_A_NODE)
    )
    return Node(NodeId(f"node-{index}"), accelerators)


def timed(cluster: Cluster, rounds: int, happens: Callable[[], Sequence[Event]]) -> Timing:
    """Repeats: something happens, one cycle."""
    timing = Timing([], [])
    for _ in range(rounds):
        cluster.now = after(cluster.now, seconds(1))
        batch = cluster.numbered(happens())
        wall, cpu = time.perf_counter(), time.process_time()
        cluster.state = cluster.state.fold(batch)
        cluster.decide()
        timing.wall.append((time.perf_counter() - wall) * 1e3)
        timing.cpu.append((time.process_time() - cpu) * 1e3)
    return timing


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> int:
    """Prints a table, or one line of JSON a row with ``--json``; 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    gc.set_threshold(*COLLECT_AFTER)
    print(f"one cycle, {args.jobs} jobs on {args.nodes} nodes of {ACCELERATORS_A_NODE}, in ms")
    columns = "".join(f" {name:>9}" for name in ("wall p50", "wall p99", "cpu p50", "cpu p99"))
    print(f"{'policy':<12} {'cluster':<14}{columns}")
    missed = False
    for policy in ("fifo", "equal-share"):
        cluster = Cluster(policy, args.jobs, args.nodes)
        cluster.settle()
        steady = timed(cluster, args.rounds, list)
        changing = timed(cluster, args.rounds, cluster.one_in_a_hundred_changes)
        for name, timing in (("steady", steady), ("1% changes", changing)):
            figures = {
                f"{kind} p{round(share * 100)}": percentile(values, share)
                for kind, values in (("wall", timing.wall), ("cpu", timing.cpu))
                for share in (0.5, 0.99)
            }
            missed |= policy == "fifo" and figures["wall p50"] >= LIMIT_MS
            if args.json:
                print(json.dumps({"policy": policy, "cluster": name, **figures}))
            else:
                print(f"{policy:<12} {name:<14}" + "".join(f" {v:>9.1f}" for v in figures.values()))
    print(f"target: fifo, wall p50 below {LIMIT_MS:g} ms: {'missed' if missed else 'kept'}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
