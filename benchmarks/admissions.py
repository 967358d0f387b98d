"""How fast jobs are admitted: the trace with which Kueue measures itself, with true run times.

    python benchmarks/admissions.py [--policy rubick] [--instant] [--share 1.0] [--csv FILE]

15,000 jobs in 30 queues: 350 small, 100 medium and 50 large ones each, which ask for 1, 5 and 20
accelerators, run for 0.2, 0.5 and 1 s, have priority 50, 100 and 200 and are submitted every 0.1,
0.5 and 1.2 s; each submission waits for the answer to the one before. Six queues of 20 accelerators
are a cohort, which is a node of 120 here: a queue may borrow what the others of its cohort leave.
(Numbers of kubernetes-sigs/kueue, test/performance/scheduler/configs/baseline/generator.yaml.)

The control plane is the real one, in a process of its own, durable on the disk. This process plays
users and agents over gRPC: an agent tells that a job began, waits its time, and tells that it
ended. No schedule is shorter than 66 s: a queue's jobs need 1,320 accelerator-seconds on 20, and
all queues ask alike. ``--instant`` leaves out all waiting: jobs run for no time and are submitted
as fast as they are taken. ``--share`` takes a part of each class.
"""

import argparse
import asyncio
import csv
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._processes import Child, a_folder, control_plane, machine
from headrace.api.generated import (
    admin_pb2,
    admin_pb2_grpc,
    common_pb2,
    jobs_pb2,
    jobs_pb2_grpc,
    nodes_pb2,
    nodes_pb2_grpc,
)

COHORTS, QUEUES_A_COHORT, QUOTA, BORROWING = 5, 6, 20, 100
FLOOR_SECONDS = 66.0
_PATIENCE_SECONDS = 1200.0


@dataclass(frozen=True)
class Size:
    """A class of jobs; times in seconds."""

    name: str
    count: int
    accelerators: int
    runs: float
    every: float
    priority: int


SIZES = (
    Size("small", 350, 1, 0.2, 0.1, 50),
    Size("medium", 100, 5, 0.5, 0.5, 100),
    Size("large", 50, 20, 1.0, 1.2, 200),
)


@dataclass
class Told:
    """What became of each job, by name; monotonic seconds.

    Attributes:
        size: Its class.
        submitted: When its submission was sent.
        admitted: When an agent first had it.
        ended: Whose end the control plane knows.
    """

    size: dict[str, Size] = field(default_factory=dict)
    submitted: dict[str, float] = field(default_factory=dict)
    admitted: dict[str, float] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)


class PlayedAgent:
    """A node: obeys its assignments, and reports what happened while the report before was away."""

    def __init__(self, name: str, channel: grpc.aio.Channel, told: Told, instant: bool) -> None:
        self._name = name
        self._stub = nodes_pb2_grpc.NodeServiceStub(channel)  # type: ignore[no-untyped-call]
        self._told = told
        self._instant = instant
        self._seen: set[tuple[str, int]] = set()
        self._started: list[nodes_pb2.UnitStarted] = []
        self._ends: list[tuple[str, nodes_pb2.UnitExited]] = []
        self._news = asyncio.Event()
        self._applied = (0, 0)

    async def run(self) -> None:
        """Until it is cancelled."""
        slots = [
            nodes_pb2.Accelerator(id=f"{self._name}/{number}", type="cpu")
            for number in range(QUEUES_A_COHORT * QUOTA)
        ]
        node = nodes_pb2.Node(
            name=self._name, accelerators=slots, labels={"cohort": self._name}, address="127.0.0.1"
        )
        await self._stub.RegisterNode(nodes_pb2.RegisterNodeRequest(node=node, agent_id=self._name))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._report())

    async def _watch(self) -> None:
        request = nodes_pb2.WatchAssignmentsRequest(node=self._name, agent_id=self._name)
        async for assignment in self._stub.WatchAssignments(request):
            self._applied = (assignment.term, assignment.number)
            for launch in assignment.launches:
                self._obey(launch)
            self._news.set()

    def _obey(self, launch: nodes_pb2.Launch) -> None:
        key = (launch.uid, launch.attempt)
        if key in self._seen:
            return
        self._seen.add(key)
        self._told.admitted.setdefault(launch.job_name, time.monotonic())
        self._started.append(nodes_pb2.UnitStarted(uid=launch.uid, attempt=launch.attempt, unit=0))
        runs = 0.0 if self._instant else self._told.size[launch.job_name].runs
        asyncio.get_running_loop().call_later(runs, self._end, launch)

    def _end(self, launch: nodes_pb2.Launch) -> None:
        ended = nodes_pb2.UnitExited(
            uid=launch.uid, attempt=launch.attempt, unit=0, outcome="Succeeded"
        )
        self._ends.append((launch.job_name, ended))
        self._news.set()

    async def _report(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), 2.0)
            self._news.clear()
            started, self._started = self._started, []
            ends, self._ends = self._ends, []
            await self._stub.Report(
                nodes_pb2.ReportRequest(
                    node=self._name,
                    agent_id=self._name,
                    applied_term=self._applied[0],
                    applied_number=self._applied[1],
                    started=started,
                    exited=[ended for _, ended in ends],
                )
            )
            self._told.ended.update(name for name, _ in ends)


def manifest(name: str, queue: str, cohort: str, size: Size) -> str:
    """A job that runs a program, as the control plane sees it."""
    return json.dumps(
        {
            "apiVersion": "headrace.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": name},
            "spec": {
                "queue": queue,
                "priority": size.priority,
                "accelerators": {
                    "minimum": size.accelerators,
                    "topology": "SameNode",
                    "selector": {"cohort": cohort},
                },
                "command": {"program": ["true"]},
            },
        }
    )


async def submit(
    stub: jobs_pb2_grpc.JobServiceStub,
    cohort: int,
    queue: int,
    size: Size,
    told: Told,
    given: argparse.Namespace,
) -> None:
    """One class of one queue, one job after the other."""
    began = time.monotonic()
    for number in range(round(size.count * given.share)):
        if not given.instant:
            await asyncio.sleep(max(0.0, began + number * size.every - time.monotonic()))
        name = f"{size.name}-{cohort}-{queue}-{number}"
        told.size[name] = size
        told.submitted[name] = time.monotonic()
        text = manifest(name, f"queue-{cohort}-{queue}", f"cohort-{cohort}", size)
        await stub.SubmitJob(jobs_pb2.SubmitJobRequest(manifest_json=text))


@dataclass(frozen=True)
class Played:
    """What one run gave; seconds, and shares of 1.

    Attributes:
        policy: Who decided.
        jobs: How many.
        wall: From the first submission to the last end that was acknowledged.
        created: Until the last submission was answered.
        rate: Jobs a second of wall time.
        useful: Accelerator-seconds that jobs ran, of those that there were.
        large, medium, small: From submission to the agent, on average of a class.
        cpu: Of the control plane.
        peak_mb: Its largest memory, in units of 10^6 bytes.
    """

    policy: str
    jobs: int
    wall: float
    created: float
    rate: float
    useful: float
    large: float
    medium: float
    small: float
    cpu: float
    peak_mb: float


async def prepare(admin: admin_pb2_grpc.AdminServiceStub, policy: str) -> None:
    """Queues and policy."""
    for cohort in range(COHORTS):
        for queue in range(QUEUES_A_COHORT):
            limits = common_pb2.Queue(
                name=f"queue-{cohort}-{queue}",
                quota_accelerators=QUOTA,
                borrowing_accelerators=BORROWING,
            )
            await admin.PutQueue(admin_pb2.PutQueueRequest(queue=limits))
    settings = {"policy": json.dumps(policy)}
    await admin.SetPolicy(admin_pb2.SetPolicyRequest(settings=settings))


async def play(child: Child, given: argparse.Namespace) -> Played:
    """The whole trace."""
    told = Told()
    async with grpc.aio.insecure_channel(child.address) as channel:
        admin = admin_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call]
        await prepare(admin, given.policy)
        agents = [
            asyncio.create_task(PlayedAgent(f"cohort-{cohort}", channel, told, given.instant).run())
            for cohort in range(COHORTS)
        ]
        before, began = child.cpu_seconds(), time.monotonic()
        jobs = jobs_pb2_grpc.JobServiceStub(channel)  # type: ignore[no-untyped-call]
        await asyncio.gather(
            *(
                submit(jobs, cohort, queue, size, told, given)
                for cohort in range(COHORTS)
                for queue in range(QUEUES_A_COHORT)
                for size in SIZES
            )
        )
        created = time.monotonic() - began
        await _until_all_ended(told, agents)
        wall = time.monotonic() - began
        for agent in agents:
            agent.cancel()
    return figures(told, given.policy, wall, created, child, child.cpu_seconds() - before)


async def _until_all_ended(told: Told, agents: Sequence[asyncio.Task[None]]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while len(told.ended) < len(told.submitted):
        for agent in agents:
            if agent.done():
                agent.result()
        if time.monotonic() > deadline:
            raise SystemExit(f"{len(told.submitted) - len(told.ended)} jobs have not ended")
        await asyncio.sleep(0.05)


def figures(
    told: Told, policy: str, wall: float, created: float, child: Child, cpu: float
) -> Played:
    """From what happened to each job."""
    waited: Mapping[str, list[float]] = {size.name: [] for size in SIZES}
    for name, at in told.admitted.items():
        waited[told.size[name].name].append(at - told.submitted[name])
    work = sum(size.accelerators * size.runs for size in told.size.values())
    there = COHORTS * QUEUES_A_COHORT * QUOTA * wall
    means = {name: statistics.fmean(each) for name, each in waited.items()}
    return Played(
        policy=policy,
        jobs=len(told.submitted),
        wall=wall,
        created=created,
        rate=len(told.submitted) / wall,
        useful=work / there,
        **means,
        cpu=cpu,
        peak_mb=_peak_mb(child),
    )


def _peak_mb(child: Child) -> float:
    """Of a process of Linux; what it has now elsewhere."""
    status = Path(f"/proc/{child.process.pid}/status")
    if not status.exists():
        return child.resident_mb()
    (line,) = (each for each in status.read_text().splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def show(played: Sequence[Played], instant: bool) -> None:
    """The table."""
    head = ("policy", "wall s", "1/s", "useful", "large s", "medium", "small", "created", "CPU s")
    print(f"\n{head[0]:<12}" + "".join(f"{name:>9}" for name in head[1:]) + "  peak MB")
    for each in played:
        print(
            f"{each.policy:<12}{each.wall:>9.1f}{each.rate:>9.1f}{each.useful:>9.1%}"
            f"{each.large:>9.2f}{each.medium:>9.2f}{each.small:>9.2f}{each.created:>9.1f}"
            f"{each.cpu:>9.1f}{each.peak_mb:>9.0f}"
        )
    if not instant:
        for each in played:
            print(f"{each.policy}: {each.wall / FLOOR_SECONDS:.2f} times the floor of 66 s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--policy", nargs="+", default=["rubick"])
    parser.add_argument("--instant", action="store_true")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    print(machine(), flush=True)
    found = []
    for policy in given.policy:
        one = argparse.Namespace(**{**vars(given), "policy": policy})
        with a_folder() as folder, control_plane(folder) as child:
            found.append(asyncio.run(play(child, one)))
    show(found, given.instant)
    if given.csv:
        with given.csv.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, list(asdict(found[0])), lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(each) for each in found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
