"""How fast jobs are accepted, beside a bare grpc.aio echo service.

Both servers are processes of their own; this process is the clients of both, with the same code.
Short slices alternate (echo, submit, echo, ...), so whatever else the machine does falls on both,
and what counts is the median of the ratios of neighbouring slices. Each submission is a new job
with a manifest of its own: checked, made durable on the disk (synchronous=FULL), acknowledged.
There are no nodes, so no job starts; the loop decides beside the submissions, as always.

    python benchmarks/submit.py [--clients 1 10 50] [--slices 7] [--seconds 1.5] [--most 4000]
"""

import argparse
import asyncio
import itertools
import json
import sqlite3
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._echo import METHOD
from benchmarks._processes import Child, a_folder, control_plane, machine, serving
from headrace.api.generated import jobs_pb2

SUBMIT = "/headrace.v1alpha1.JobService/SubmitJob"
TARGETS = {1: 1 / 3, 10: 1 / 2, 50: 1 / 2}
_COMMITS = 300


@dataclass(frozen=True)
class Slice:
    """What one server did in one slice."""

    rate: float
    cpu_ms: float
    p50_ms: float


def _requests() -> Iterator[jobs_pb2.SubmitJobRequest]:
    """A new job each time, all of one size."""
    for number in itertools.count(1):
        manifest = {
            "apiVersion": "headrace.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {
                "name": f"bench-{number:08d}",
                "labels": {"team": "benchmarks", "purpose": "submit"},
            },
            "spec": {
                "queue": "default",
                "priority": number % 3,
                "accelerators": {"minimum": 2, "maximum": 8, "selector": {"zone": "a"}},
                "model": {"name": "gpt2", "preset": "small"},
                "data": {"source": "python-stdlib", "sequenceLength": 128},
                "env": [{"name": "RUN", "value": f"{number:08d}"}],
                "training": {
                    "globalBatchSize": 64,
                    "steps": 10_000,
                    "learningRate": 0.0003,
                    "warmupSteps": 100,
                    "seed": number,
                },
                "checkpoint": {"store": "/checkpoints/bench", "everySteps": 100},
            },
        }
        yield jobs_pb2.SubmitJobRequest(manifest_json=json.dumps(manifest))


class Callers:
    """Clients with a connection each, who call again as soon as they are answered."""

    def __init__(self, child: Child, method: str, answer: Any, count: int) -> None:
        self._child = child
        self._channels = [
            grpc.aio.insecure_channel(child.address, [("grpc.use_local_subchannel_pool", 1)])
            for _ in range(count)
        ]
        self._calls = [
            channel.unary_unary(
                method,
                request_serializer=jobs_pb2.SubmitJobRequest.SerializeToString,
                response_deserializer=answer.FromString,
            )
            for channel in self._channels
        ]

    async def slice(
        self, requests: Iterator[jobs_pb2.SubmitJobRequest], seconds: float, most: int
    ) -> Slice:
        """Everyone calls until the time or the count is up."""
        prepared = list(itertools.islice(requests, most))
        waiting = iter(prepared)
        took: list[float] = []
        cpu, began = self._child.cpu_seconds(), time.perf_counter()

        async def client(call: Any) -> None:
            for request in waiting:
                asked = time.perf_counter()
                await call(request)
                answered = time.perf_counter()
                took.append(answered - asked)
                if answered - began >= seconds:
                    return

        await asyncio.gather(*(client(call) for call in self._calls))
        wall = time.perf_counter() - began
        spent = self._child.cpu_seconds() - cpu
        return Slice(len(took) / wall, spent / len(took) * 1e3, statistics.median(took) * 1e3)

    async def close(self) -> None:
        """Ends the connections."""
        for channel in self._channels:
            await channel.close(None)


async def _side_by_side(
    echo: Child, plane: Child, clients: int, told: argparse.Namespace
) -> tuple[list[Slice], list[Slice]]:
    requests = _requests()
    callers = (
        Callers(echo, METHOD, jobs_pb2.SubmitJobRequest, clients),
        Callers(plane, SUBMIT, jobs_pb2.SubmitJobResponse, clients),
    )
    slices: tuple[list[Slice], list[Slice]] = ([], [])
    try:
        for each in callers:  # Connects, and lets the code be read.
            await each.slice(requests, told.seconds / 3, told.most)
        for _ in range(told.slices):
            for each, done in zip(callers, slices, strict=True):
                done.append(await each.slice(requests, told.seconds, told.most))
    finally:
        for each in callers:
            await each.close()
    return slices


def _commit_ms(folder: Path) -> float:
    """A durable commit of one row of an event's size, on the same disk."""
    connection = sqlite3.connect(folder / "probe.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE probe (seq INTEGER PRIMARY KEY, body TEXT)")
    took = []
    for _ in range(_COMMITS):
        began = time.perf_counter()
        connection.execute("INSERT INTO probe (body) VALUES (?)", ("x" * 2_000,))
        took.append(time.perf_counter() - began)
    connection.close()
    return statistics.median(took) * 1e3


def _median(slices: Sequence[Slice], what: str) -> float:
    return statistics.median(float(getattr(each, what)) for each in slices)


def _measure(clients: int, told: argparse.Namespace) -> bool:
    with (
        a_folder() as folder,
        serving(str(Path(__file__).with_name("_echo.py"))) as echo,
        control_plane(folder) as plane,
    ):
        commit = _commit_ms(folder)
        echoed, submitted = asyncio.run(_side_by_side(echo, plane, clients, told))
    ratios = [b.rate / a.rate for a, b in zip(echoed, submitted, strict=True)]
    ratio, target = statistics.median(ratios), TARGETS.get(clients, 0.5)
    holds = ratio >= target
    print(
        f"{clients:7d} {_median(echoed, 'rate'):9.0f} {_median(submitted, 'rate'):9.0f}"
        f" {ratio:6.2f} {min(ratios):5.2f}-{max(ratios):.2f} {target:6.2f} "
        f"{'yes' if holds else 'NO':>5s}"
        f" {_median(echoed, 'p50_ms'):8.2f} {_median(submitted, 'p50_ms'):8.2f}"
        f" {_median(echoed, 'cpu_ms'):8.2f} {_median(submitted, 'cpu_ms'):8.2f} {commit:8.2f}",
        flush=True,
    )
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=list(TARGETS))
    parser.add_argument("--slices", type=int, default=7, help="of each server")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a slice")
    parser.add_argument("--most", type=int, default=4_000, help="calls of a slice")
    told = parser.parse_args()
    print(machine())
    print(
        "             rate of calls (1/s)       of ratios           "
        "  answered in (ms)    server CPU (ms)  commit\n"
        "clients      echo    submit  ratio  least-most target holds     echo   submit"
        "     echo   submit     (ms)"
    )
    results = [_measure(clients, told) for clients in told.clients]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
