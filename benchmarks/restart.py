"""How long a control plane needs after a restart until it decides again, with a large store.

The store holds nodes of 28 accelerators each, all of them held by running jobs (a launch unit and
a placement for each accelerator), one job that waits, and the events of a minute since the last
checkpoint. No agent speaks: all nodes are silent, the worst case. Measured is the time from the
start of the process until the first decision has said why the waiting job waits: with the wait for
silent nodes turned off, and as configured by default.

    python benchmarks/restart.py [--nodes 5000] [--rounds 3] [--events 30000]
"""

import argparse
import asyncio
import json
import shutil
import sqlite3
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._processes import a_folder, control_plane, machine
from controlplane.baselines import BASELINES
from controlplane.domain.clock import Instant
from controlplane.domain.event import (
    Event,
    JobProgressed,
    JobSubmitted,
    NodeRegistered,
    PolicyChanged,
    RendezvousBound,
    UnitStarted,
)
from controlplane.domain.from_manifest import job_from_manifest
from controlplane.domain.ids import AcceleratorId, JobUid, NodeId, SequenceNumber, Term
from controlplane.domain.node import Accelerator, Node
from controlplane.domain.policy import PolicySettings
from controlplane.domain.reason import ReasonCode
from controlplane.domain.record import Progress
from controlplane.edges.store.restoring import SEQUENCE_FLOOR
from controlplane.edges.store.store import Store
from controlplane.edges.store.tail import EventTail
from controlplane.edges.wall_clock import WallClock
from controlplane.engine.cycle import run_cycle
from controlplane.engine.state import ClusterState, SequencedEvent
from controlplane.wire.manifests import parse_manifest
from headrace.api.generated import jobs_pb2, jobs_pb2_grpc

ACCELERATORS_A_NODE = 28
RANKS_A_JOB = 14
LIMIT_SECONDS = 30.0
_PATIENCE_SECONDS = 600.0
WAITING = "waiting"


def _node(number: int) -> Node:
    accelerators = tuple(
        Accelerator(AcceleratorId(f"GPU-{number:05d}-{slot:02d}"), "gpu", 80 * 2**30)
        for slot in range(ACCELERATORS_A_NODE)
    )
    return Node(
        id=NodeId(f"node-{number:05d}"), address=f"10.0.0.1:{number}", accelerators=accelerators
    )


def _submitted(name: str, ranks: int, at: Instant) -> JobSubmitted:
    manifest = {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {
            "accelerators": {"minimum": ranks},
            "model": {"name": "gpt2", "preset": "small"},
            "data": {"source": "python-stdlib"},
            "training": {"globalBatchSize": 2 * ranks, "steps": 100_000},
            "checkpoint": {"store": "/checkpoints/bench"},
        },
    }
    job = job_from_manifest(parse_manifest(json.dumps(manifest)), uid=JobUid(name))
    return JobSubmitted(replace(job, submitted_at=at), at)


def _numbered(events: Sequence[Event], after_number: int) -> list[SequencedEvent]:
    return [
        SequencedEvent(SequenceNumber(number), event)
        for number, event in enumerate(events, after_number + 1)
    ]


def _full_cluster(nodes: int, policy: str, at: Instant) -> ClusterState:
    """Every accelerator is held by a job that trains; the real policy placed them."""
    jobs = nodes * ACCELERATORS_A_NODE // RANKS_A_JOB
    events: list[Event] = [PolicyChanged(PolicySettings(policy=policy), at)]
    events += [NodeRegistered(_node(number), at=at) for number in range(nodes)]
    events += [_submitted(f"running-{number:06d}", RANKS_A_JOB, at) for number in range(jobs)]
    state = ClusterState.empty().fold(_numbered(events, 0))
    outcome = run_cycle(state, at, BASELINES, Term(1))
    state = state.fold(_numbered([outcome.decided], state.last_sequence))
    events = []
    for uid, record in state.jobs.items():
        if (attempt := record.attempt) is None:
            raise SystemExit(f"{uid} was not started: {outcome.refused or record.reason}")
        events.append(RendezvousBound(uid, attempt.number, "10.0.0.1:29500", at))
        units = attempt.placement.units
        events += [UnitStarted(uid, attempt.number, unit.index, at) for unit in units]
        events.append(JobProgressed(uid, attempt.number, Progress(100, 50, 2.5, 0.3, at), (), at))
    return state.fold(_numbered(events, state.last_sequence))


def _progress(state: ClusterState, count: int, at: Instant) -> Iterator[Event]:
    """So many reports of steps, of one job after the other."""
    for number, record in enumerate(islice(cycle(state.jobs.values()), count)):
        assert record.attempt is not None
        step = 101 + number // len(state.jobs)
        progress = Progress(step, 50, 2.4, 0.3, at)
        yield JobProgressed(record.uid, record.attempt.number, progress, ((step, 2.4),), at)


async def _write(
    file: Path, checkpoint: ClusterState | None, events: Sequence[Event], at: Instant
) -> None:
    store = Store.open(f"sqlite:///{file}")
    try:
        if checkpoint is not None:
            _number_above(file, checkpoint.last_sequence)
        writer = store.start_writer(store.acquire_term("bench", at), EventTail(WallClock()))
        if checkpoint is not None:
            number = checkpoint.last_sequence
            await writer.save_checkpoint(checkpoint, ClusterState, number, at)
        for some in (events[i : i + 5_000] for i in range(0, len(events), 5_000)):
            await asyncio.gather(*(writer.append(event) for event in some))
        await writer.give_up_lease()
        await writer.close()
    finally:
        store.close()


def _number_above(file: Path, number: int) -> None:
    """The checkpoint stands for what led to it, which is not in the log, as after pruning."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("INSERT INTO meta VALUES (?, ?)", (SEQUENCE_FLOOR, str(number)))


async def _until_decided(address: str, uid: str) -> None:
    """Returns when the job has a reason other than that the control plane has just started."""
    async with grpc.aio.insecure_channel(address) as channel:
        jobs = jobs_pb2_grpc.JobServiceStub(channel)  # type: ignore[no-untyped-call]
        request = jobs_pb2.GetJobRequest(selector=jobs_pb2.JobSelector(uid=uid))
        async with asyncio.timeout(_PATIENCE_SECONDS):
            undecided = ("", ReasonCode.RECOVERING.value)
            while (await jobs.GetJob(request)).job.status.reason.code in undecided:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


def _restarted(base: Path, changes: Sequence[Event]) -> tuple[float, float, float]:
    """Seconds from the start of the process to ready, and to the first decision; and its MB."""
    with a_folder() as folder:
        shutil.copy(base, folder / "headrace.db")
        if changes:
            asyncio.run(_write(folder / "headrace.db", None, changes, WallClock().now()))
        began = time.perf_counter()
        with control_plane(folder) as plane:
            ready = time.perf_counter() - began
            asyncio.run(_until_decided(plane.address, WAITING))
            return ready, time.perf_counter() - began, plane.resident_mb()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=5_000)
    parser.add_argument("--events", type=int, default=30_000, help="since the last checkpoint")
    parser.add_argument("--policy", default="fifo", choices=sorted(BASELINES))
    parser.add_argument("--rounds", type=int, default=3)
    told = parser.parse_args()
    at = WallClock().now()
    print(machine())
    with a_folder() as folder:
        base = folder / "base.db"
        state = _full_cluster(told.nodes, told.policy, at)
        placements = sum(
            record.attempt.placement.accelerator_count
            for record in state.jobs.values()
            if record.attempt is not None
        )
        events = [*_progress(state, told.events, at), _submitted(WAITING, RANKS_A_JOB, at)]
        asyncio.run(_write(base, state, events, at))
        print(
            f"{told.nodes} nodes, {len(state.jobs)} running jobs, {placements} placements, "
            f"{len(events)} events after the checkpoint, {base.stat().st_size / 1e6:.0f} MB; "
            f"policy {told.policy}"
        )
        at_once = PolicyChanged(
            PolicySettings(policy=told.policy, recovery_grace_seconds=0.0), WallClock().now()
        )
        good = True
        default = PolicySettings().recovery_grace_seconds
        for name, changes in (("none", [at_once]), (f"up to {default:g} s", [])):
            rounds = [_restarted(base, changes) for _ in range(told.rounds)]
            ready, decides, resident = (
                statistics.median(each) for each in zip(*rounds, strict=True)
            )
            holds = max(each[1] for each in rounds) < LIMIT_SECONDS
            good = good and holds
            print(
                f"wait for silent nodes: {name:10s} ready after {ready:5.1f} s, decides after "
                f"{decides:5.1f} s (worst {max(each[1] for each in rounds):.1f} s), "
                f"{resident:.0f} MB; wanted below {LIMIT_SECONDS:g} s: {'yes' if holds else 'NO'}",
                flush=True,
            )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
