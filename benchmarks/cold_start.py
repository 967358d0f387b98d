"""What it gains or costs to try plans where nothing is known yet.

    python benchmarks/cold_start.py --data DIR [--seeds 5] [--loads 1,2] [--costs live] [--csv]

The 406 jobs of Rubick's base trace train models of docs/evidence and relatives of theirs, under
any plan, on eight nodes of eight H100. What steps take is what the performance model says, fitted
to the measured tables; models without a table differ from a measured one by what models are
expected to differ by, drawn from the seed. The policy begins with no fit at all, and learns as a
live one does: jobs tell what their plans take, and each type is fitted again.

* ``known``: the policy knows what steps take;
* ``cold``: it begins with priors and learns from what runs anyway;
* ``tries N``: and running jobs try up to N plans each, where that is worth it.

A start takes 30 s and a change in memory 2 s (``live``), or everything 78 s (``restart``).
"""

import argparse
import csv
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy.special import ndtri

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from controlplane.domain.any_plan import plans_to_choose
from controlplane.domain.chance import draw
from controlplane.domain.clock import Instant, seconds
from controlplane.domain.from_manifest import spec_of
from controlplane.domain.ids import JobUid
from controlplane.domain.job import Job, JobSpec
from controlplane.domain.model_type import type_named
from controlplane.domain.policy import Policy
from controlplane.domain.reason import ReasonCode
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_time_fit import StepTimeFit
from controlplane.domain.step_times import Shares, StepTimes, Way
from controlplane.rubick.configurations import Configurations
from controlplane.rubick.fits import as_stored, sizes_of
from controlplane.rubick.fitted import FittedTimes
from controlplane.rubick.fitting import fit
from controlplane.rubick.measurements import Measurement
from controlplane.rubick.parameters import PARAMETERS
from controlplane.rubick.policy import Rubick
from controlplane.rubick.priors import prior_for, transferred
from controlplane.rubick.settings import LIVE, RubickSettings
from controlplane.rubick.step_time import StepTimeModel
from headrace.api.manifest import TrainingJob
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_file import table_rows_in
from headrace.api.profile_rows import PlanRow, Status
from simulator.measured_table import read_table
from simulator.run import simulate_to_the_end
from simulator.scenario import Arrival, Costs, Faults, Scenario
from simulator.telling import learnt
from simulator.workloads.rubick import read_rubick
from simulator.workloads.trace_jobs import Cluster, TraceJob, at_load, nodes_of

EVIDENCE = Path(__file__).resolve().parent.parent / "docs" / "evidence"
DEVICE, KIND = "NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"
MEMORY = 80 * 10**9
ACCELERATORS_MAX = 32
CPU_THREADS = 16.0

MODELS: Mapping[str, tuple[str, str, int, int]] = {
    "vit": ("vit", "86m", 64, 197),
    "roberta": ("roberta", "355m", 32, 512),
    "bert": ("bert", "336m", 32, 512),
    "t5": ("t5", "1.2b", 16, 512),
    "gpt2": ("gpt2", "1.26b", 16, 1024),
    "llama7": ("llama", "2-7b", 8, 1024),
    "llama30": ("gpt2", "1.5b", 16, 1024),
}
"""What a job of the trace trains here: family, preset, batch and positions. LLaMA-30B has no
neighbour among the measured models, so a larger GPT-2 takes its place.
"""

DONORS = {"vit": "bert-336m", "roberta": "bert-336m", "t5": "gpt2-1.26b", "llama30": "gpt2-1.26b"}
"""From which measured model a model without a table differs."""

COSTS: Mapping[str, tuple[Costs, RubickSettings]] = {
    "live": (
        Costs(
            startSeconds=30.0,
            planChangeSeconds=2.0,
            joinSeconds=30.0,
            checkpointSeconds=2.0,
            messageSeconds=0.0,
            progressSeconds=120.0,
        ),
        LIVE,
    ),
    "restart": (Costs.of_a_switch(78.0, progressSeconds=600.0), RubickSettings()),
}


def type_of(application: str) -> str:
    """The type of model that an application of the trace trains here."""
    family, preset, batch, positions = MODELS[application]
    return f"{family}-{preset} bf16 batch {batch}x{positions}"


@cache
def measured(model: str) -> StepTimeModel:
    """The performance model of a measured model, fitted to all rows of its table."""
    rows = [
        row
        for row in table_rows_in(EVIDENCE / f"plans-{model}.csv")
        if isinstance(row, PlanRow) and row.status is Status.MEASURED
    ]
    asked = rows[0].asked
    known = type_named(
        f"{model} {asked.precision} batch {asked.global_batch}x{asked.sequence_length}"
    )
    assert known is not None
    prior = prior_for(sizes_of(known), DEVICE, precision=asked.precision)
    return fit([Measurement.of_row(row) for row in rows], prior).model


def truth(application: str, seed: int) -> StepTimeModel:
    """What steps of an application's model take in the world of a seed."""
    donor = DONORS.get(application)
    if donor is None:
        family, preset, *_ = MODELS[application]
        return measured(f"{family}-{preset}")
    named = type_named(type_of(application))
    assert named is not None
    model = transferred(measured(donor), sizes_of(named))
    luck = [
        float(ndtri(draw(seed, "truth", application, parameter.name))) * parameter.transfers
        for parameter in PARAMETERS
    ]
    return replace(model, log_parameters=model.log_parameters + np.array(luck))


class TrueTimes:
    """What steps take in a world: its physics."""

    def __init__(self, models: Mapping[str, StepTimeModel]) -> None:
        """By type of model."""
        self._models = models
        self._known = lru_cache(maxsize=2**14)(self._way)

    def ways(self, spec: JobSpec, kind: str) -> tuple[Way, ...]:
        """Nobody chooses by it."""
        raise NotImplementedError

    def way(self, spec: JobSpec, kind: str, plan: ExecutionPlan, shares: Shares) -> Way | None:
        """What one way takes."""
        return self._known(spec.model_type, spec.global_batch_size, plan, shares)

    def _way(self, model_type: str, samples: int, plan: ExecutionPlan, shares: Shares) -> Way:
        configuration = Configurations.of([plan], [shares], samples, cpu_threads=CPU_THREADS)
        taken = float(self._models[model_type].seconds(configuration)[0])
        return Way(plan, shares, taken, taken)


def fits_of(models: Mapping[str, StepTimeModel]) -> dict[str, StepTimeFit]:
    """The same as fits that leave no doubt."""
    found = {}
    for name, model in models.items():
        sure = replace(model, covariance=model.covariance * 1e-6, noise=1e-3, rows=1000)
        stored = as_stored(sure, name, KIND, CPU_THREADS, Instant(0))
        found[stored.key] = stored
    return found


def knowing(models: Mapping[str, StepTimeModel], settings: RubickSettings) -> Policy:
    """The policy that knows what steps take."""
    fits, times = fits_of(models), FittedTimes()

    def at(snapshot: ClusterSnapshot) -> StepTimes:
        return times(replace(snapshot, fits=fits))

    return Rubick(at, settings)


@cache
def spec_for(application: str, steps: int) -> JobSpec:
    """A job, as its manifest makes it."""
    family, preset, batch, positions = MODELS[application]
    data: dict[str, object] = {"source": "random"}
    if family != "vit":
        data["sequenceLength"] = positions
    manifest = {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": application},
        "spec": {
            "accelerators": {"minimum": 1, "maximum": ACCELERATORS_MAX},
            "model": {"name": family, "preset": preset},
            "data": data,
            "training": {"globalBatchSize": batch, "steps": steps, "precision": "bf16"},
            "checkpoint": {"store": "/checkpoints"},
        },
    }
    text = json.dumps(manifest)
    spec = spec_of(TrainingJob.model_validate_json(text))
    assert spec.model_type == type_of(application), spec.model_type
    assert spec.any_plan
    return replace(spec, manifest_json=text)


def world(
    jobs: Sequence[TraceJob], models: Mapping[str, StepTimeModel], seed: int, costs: Costs
) -> Scenario:
    """The scenario: each job has as many steps as the fastest plan of those accelerators that it
    asks for makes in the time that the trace recorded.
    """
    nodes = tuple(
        replace(
            node,
            accelerators=tuple(replace(a, memory_bytes=MEMORY) for a in node.accelerators),
        )
        for node in nodes_of(Cluster(), KIND)
    )
    physics = TrueTimes(models)
    arrivals = []
    for job in sorted(jobs, key=lambda each: each.at_seconds):
        step = fastest(models, job.model_type, min(job.accelerators, ACCELERATORS_MAX))
        spec = spec_for(job.model_type, max(20, round(job.recorded_seconds / step)))
        built = Job(JobUid(job.name), "trace", job.name, 1, spec)
        arrivals.append(Arrival(Instant(seconds(job.at_seconds)), built))
    faults = Faults(stepNoise=0.04)
    return Scenario(seed, nodes, tuple(arrivals), (), faults, costs, physics, tells=True)


def fastest(models: Mapping[str, StepTimeModel], application: str, accelerators: int) -> float:
    """Seconds of a step of the fastest plan on so many accelerators of few nodes."""
    name = type_of(application)
    spec = spec_for(application, 100)
    full, rest = divmod(accelerators, 8)
    shares = (8,) * full + ((rest,) if rest else ())
    plans = [
        plan
        for plan in plans_to_choose(spec, 64)
        if plan.ranks == accelerators
        and not plan.offload
        and all(share % plan.tensor_parallel == 0 for share in shares)
    ]
    if not plans:
        return fastest(models, application, accelerators - 1)
    asked = Configurations.of(
        plans, [shares] * len(plans), spec.global_batch_size, cpu_threads=CPU_THREADS
    )
    return float(models[name].seconds(asked).min())


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run that is over; times in hours."""

    costs: str
    load: float
    seed: int
    policy: str
    average: float
    p99: float
    makespan: float
    changes: int
    tries: int
    wall_seconds: float


def played(
    scenario: Scenario, policy: Policy, name: str, costs: str, load: float, *, learns: bool
) -> Outcome:
    """Plays a scenario to its end.

    Raises:
        ValueError: A decision broke an invariant.
    """
    begun = perf_counter()
    result = simulate_to_the_end(scenario, policy, name="rubick", learns=learnt if learns else None)
    if result.refused:
        raise ValueError(result.refused[0])
    times = [each / 3600 for each in result.completion_seconds()]
    records = result.jobs.values()
    tries = sum(
        switch.reason is ReasonCode.TRIES_PLAN for each in records for switch in each.switches
    )
    return Outcome(
        costs,
        load,
        scenario.seed,
        name,
        statistics.fmean(times),
        times[int(0.99 * len(times))],
        result.ended_at / 3.6e12,
        sum(each.reconfigurations for each in records),
        tries,
        perf_counter() - begun,
    )


def outcomes(
    jobs: Sequence[TraceJob], seed: int, load: float, costs: str, tries: Sequence[int]
) -> Iterator[Outcome]:
    """All policies in one world."""
    models = {type_of(name): truth(name, seed) for name in MODELS}
    priced, settings = COSTS[costs]
    scenario = world(at_load(jobs, load), models, seed, priced)
    yield played(scenario, knowing(models, settings), "known", costs, load, learns=False)
    for most in (0, *tries):
        policy = Rubick(FittedTimes(), replace(settings, try_plans_at_most=most))
        name = f"tries {most}" if most else "cold"
        yield played(scenario, policy, name, costs, load, learns=True)


def main() -> None:
    """Plays what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--loads", default="1")
    parser.add_argument("--costs", default="live,restart")
    parser.add_argument("--tries", default="4")
    parser.add_argument("--jobs", type=int, default=0, help="only the first so many")
    parser.add_argument("--csv", action="store_true")
    given = parser.parse_args()
    table = read_table(given.data / "rubick" / "measured")
    jobs = read_rubick(given.data / "rubick" / "workloads" / "workload-base.csv", table)
    jobs = jobs[: given.jobs or None]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    names = Outcome.__slots__
    if given.csv:
        writer.writerow(names)
    for costs in given.costs.split(","):
        for load in map(float, given.loads.split(",")):
            for seed in range(1, given.seeds + 1):
                tries = [int(each) for each in given.tries.split(",") if each]
                for found in outcomes(jobs, seed, load, costs, tries):
                    row = [getattr(found, name) for name in names]
                    if given.csv:
                        writer.writerow(row)
                    else:
                        print(*(f"{v:.4g}" if isinstance(v, float) else v for v in row), sep="\t")
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
