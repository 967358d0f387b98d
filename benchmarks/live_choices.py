"""Whether the plans that ``rubick`` chooses on this machine are close to the best measured ones.

    python benchmarks/live_choices.py gpt2-1.26b:600 bert-336m:2000 vit-86m:3000 \\
        [--referee docs/evidence] [--nodes 1] [--slots 2 --cpu] [--settle 20] [--csv FILE]

A real cluster is started on this machine, which knows nothing of these models. The jobs (preset
and steps) are submitted in turn: each when the one before has trained for ``--settle`` seconds. For
each allocation, a job on a number of accelerators, the plan that it had last is held against the
fastest one of ``plans-PRESET.csv``, which ``benchmarks/evidence.py`` measured without any
scheduler, by the rows of both: 1.05 is 5 % slower than the best plan of the list. What its steps
took here stands beside it, and judges a plan that the list does not have; machines of one kind
differ by more than plans do. An allocation that was over before ``--settle`` seconds is shown and
not judged. Ends with 1 if one is beyond 5 %.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._processes import ROOT, a_folder, machine
from benchmarks.evidence import TASKS, read
from headrace.api.generated import jobs_pb2
from headrace.api.profile_rows import PlanRow, Status
from headrace.client.client import Client
from headrace.client.context import load

LIMIT = 1.05
_ENDED = ("Succeeded", "Failed")
_LOOK_SECONDS = 0.5


@dataclass(slots=True)
class Allocation:
    """A job on a number of accelerators, from when it got them until it has others.

    Attributes:
        job: Name of the job, which is that of its model.
        accelerators: How many.
        plans: That it had there, in their order.
        seconds: For how long it trained there.
        step: What a step took in the middle under the last plan, in seconds; 0 if nobody said.
        listed_step: What it took by the list; 0 if the list does not have that plan.
        best: Fastest plan of the list; empty without a referee.
        best_step: What its steps took, in seconds.
        judged: Whether it lasted long enough to be judged.
    """

    job: str
    accelerators: int
    plans: list[str]
    seconds: float = 0.0
    step: float = 0.0
    listed_step: float = 0.0
    best: str = ""
    best_step: float = 0.0
    judged: bool = False

    @property
    def ratio(self) -> float:
        """How many times as long as under the best plan; 0 if that is not known."""
        return (self.listed_step or self.step) / self.best_step if self.best_step else 0.0


def manifest(preset: str, steps: int, maximum: int, precision: str, store: Path) -> dict[str, Any]:
    """A job that leaves its plan to the policy; its data are as large as those of the tables."""
    family, _, size = preset.partition("-")
    batch, positions = TASKS[preset]
    data = (
        {"source": "random"}
        if family == "vit"
        else {"source": "random", "sequenceLength": positions}
    )
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": preset.replace(".", "-")},
        "spec": {
            "accelerators": {"minimum": 1, "maximum": maximum},
            "model": {"name": family, "preset": size},
            "data": data,
            "training": {"globalBatchSize": batch, "steps": steps, "precision": precision},
            "checkpoint": {"store": str(store), "everySteps": steps},
        },
    }


@contextmanager
def cluster(home: Path, arguments: Sequence[str]) -> Iterator[Client]:
    """One that ``headrace up`` starts."""
    environment = {**os.environ, "HEADRACE_HOME": str(home)}
    command = [sys.executable, "-m", "headrace.cli.main"]
    subprocess.run([*command, "up", "--no-dashboard", *arguments], env=environment, check=True)
    try:
        with Client(load(home, {}, {}), patience_seconds=60.0) as client:
            yield client
    finally:
        subprocess.run([*command, "down"], env=environment, check=False)


class Watch:
    """What the jobs are seen to have."""

    def __init__(self, client: Client, uids: Mapping[str, str]) -> None:
        self._client = client
        self._uids = uids
        self.allocations: list[Allocation] = []
        self._now: dict[str, Allocation] = {}
        self._last = time.monotonic()

    def look(self) -> dict[str, jobs_pb2.Job]:
        """All jobs as they are, and what was added to their allocations."""
        passed, self._last = time.monotonic() - self._last, time.monotonic()
        jobs = {name: self._client.get_job_by_uid(uid) for name, uid in self._uids.items()}
        for name, job in jobs.items():
            self._note(name, job.status, passed)
        return jobs

    def _note(self, name: str, status: jobs_pb2.JobStatus, passed: float) -> None:
        if status.stage != "Running" or not status.plan:
            self._now.pop(name, None)
            return
        held = sum(len(unit.accelerators) for unit in status.units)
        now = self._now.get(name)
        if now is None or now.accelerators != held:
            now = self._now[name] = Allocation(name, held, [status.plan])
            self.allocations.append(now)
        if now.plans[-1] != status.plan:
            now.plans.append(status.plan)
            now.seconds = 0.0
        if status.progress.step:
            now.seconds += passed

    def steady(self, name: str) -> float:
        """For how long a job has trained under the plan that it has."""
        now = self._now.get(name)
        return now.seconds if now is not None else 0.0


def played(
    client: Client, jobs: Mapping[str, int], store: Path, given: argparse.Namespace
) -> list[Allocation]:
    """The jobs, one after the other, until all have ended."""
    most = int(client.cluster().accelerators_total)
    uids: dict[str, str] = {}
    watch = Watch(client, uids)
    deadline = time.monotonic() + given.seconds
    waiting = list(jobs.items())
    while any(job.status.stage not in _ENDED for job in watch.look().values()) or waiting:
        newest = next(reversed(uids), "")
        if waiting and (
            not newest or watch.steady(newest) > given.settle or _over(client, uids, newest)
        ):
            preset, steps = waiting.pop(0)
            described = manifest(preset, steps, most, given.precision, store)
            uids[preset] = client.submit(json.dumps(described)).uid
            print(f"{preset} is submitted", flush=True)
            _tell(client, uids)
        if time.monotonic() > deadline:
            print(f"after {given.seconds:.0f} s not all have ended", flush=True)
            break
        time.sleep(_LOOK_SECONDS)
    for preset, uid in uids.items():
        told = client.explain(uid)
        print(
            f"{preset}: {told.stage}", *(each.reason.message for each in told.decisions), sep="\n  "
        )
    _measured(client, watch.allocations, uids)
    return watch.allocations


def _tell(client: Client, uids: Mapping[str, str]) -> None:
    """Why the jobs have what they have, as ``headrace explain`` says."""
    for name, uid in uids.items():
        print(f"  {name}:", *client.explain(uid).because, sep="\n    ", flush=True)


def _over(client: Client, uids: Mapping[str, str], name: str) -> bool:
    return client.get_job_by_uid(uids[name]).status.stage in _ENDED


def _measured(client: Client, found: Sequence[Allocation], uids: Mapping[str, str]) -> None:
    """What steps took, as the jobs told in passing."""
    for each in found:
        told = [
            one.measured.iteration
            for one in client.observations()
            if one.uid == uids[each.job]
            and one.measured.plan == each.plans[-1]
            and one.measured.accelerators == each.accelerators
            and one.measured.HasField("iteration")
        ]
        each.step = statistics.median(told) if told else 0.0


def refereed(found: Sequence[Allocation], folder: Path, settle: float) -> None:
    """The best row for each allocation."""
    for each in found:
        rows = {
            row.plan: row.iteration
            for row in read(folder / f"plans-{each.job}.csv")
            if isinstance(row, PlanRow)
            and row.status is Status.MEASURED
            and row.asked.accelerators == each.accelerators
            and row.iteration is not None
        }
        if rows:
            each.best = min(rows, key=rows.__getitem__)
            each.best_step = rows[each.best]
            each.listed_step = rows.get(each.plans[-1], 0.0)
        each.judged = each.seconds >= settle and each.ratio > 0


def show(found: Sequence[Allocation]) -> None:
    """The table."""
    best = f"{'best':<12} {'s/step':>8}  ratio"
    print(f"\n{'job':<12} {'n':>2} {'plans':<16} {'here':>7} {'listed':>8} {best}")
    for each in found:
        ratio = f"{each.ratio:.3f}" if each.judged else "-"
        print(
            f"{each.job:<12} {each.accelerators:>2} {' '.join(each.plans):<16} {each.step:>7.4f} "
            f"{each.listed_step:>8.4f} {each.best:<12} {each.best_step:>8.4f} {ratio:>6}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("jobs", nargs="+", metavar="PRESET:STEPS")
    parser.add_argument("--referee", type=Path, default=ROOT / "docs" / "evidence")
    parser.add_argument("--settle", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--slots", type=int, default=0, help="of each node, on its CPU")
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    jobs = {name: int(steps) for name, _, steps in (each.partition(":") for each in given.jobs)}
    unknown = sorted(set(jobs) - set(TASKS))
    if unknown:
        parser.error(f"wanted models of {', '.join(sorted(TASKS))}, got {', '.join(unknown)}")
    print(machine(), flush=True)
    arguments = ["--nodes", str(given.nodes)]
    if given.slots:
        arguments += ["--cpu", "--slots", str(given.slots)]
    with a_folder() as home, cluster(home, arguments) as client:
        found = played(client, jobs, home / "checkpoints", given)
    refereed(found, given.referee, given.settle)
    show(found)
    if given.csv:
        with given.csv.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(
                lines, [*(each.name for each in fields(Allocation)), "ratio"], lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(
                {**asdict(each), "plans": " ".join(each.plans), "ratio": each.ratio}
                for each in found
            )
    judged = [each for each in found if each.judged]
    late = [each for each in judged if each.ratio > LIMIT]
    print(
        f"\n{len(judged) - len(late)} of {len(judged)} that are judged are within 5 % of the best"
    )
    return 1 if late or not judged else 0


if __name__ == "__main__":
    sys.exit(main())
