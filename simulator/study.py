"""A comparison: policies on a workload, each with every seed, in processes side by side."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing import get_context
from multiprocessing.sharedctypes import SynchronizedArray
from pathlib import Path
from time import perf_counter

from controlplane.domain.clock import Instant
from headrace.api.counted import counted
from simulator.measured_table import MeasuredTable, read_table
from simulator.policies import assumptions_of, policy_named
from simulator.results.files import write_run
from simulator.results.job_outcomes import job_outcomes
from simulator.results.summary import Summary, summary_of
from simulator.run import simulate_to_the_end
from simulator.scenario import Faults, Scenario
from simulator.workloads.drawing import Drawing
from simulator.workloads.philly import BUSIEST, Window, read_philly
from simulator.workloads.rubick import read_rubick
from simulator.workloads.sia import RULE, read_sia
from simulator.workloads.synthetic import Synthetic, generate
from simulator.workloads.trace_jobs import (
    REPORT_SECONDS,
    SWITCH_SECONDS,
    Cluster,
    TraceJob,
    as_recorded,
    at_load,
    scenario_of,
    with_guaranteed,
)

RUBICK = ("base", "bp", "mt")
SIA = tuple(f"sia-{family}-{number}" for family in ("philly", "newtrace") for number in range(1, 5))
WORKLOADS = (*RUBICK, "philly", *SIA, "synthetic")

GUARANTEED_OF_MT = 194
"""Guaranteed jobs among the 406 of Rubick's multi-tenant trace."""

_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Study:
    """What is compared on what.

    Attributes:
        workload: One of ``WORKLOADS``, or a file with the columns of Rubick's workloads.
        data: Folder with ``rubick`` and ``traces``.
        cluster: The nodes.
        switch_seconds: What a start or a change takes.
        load: How many times as fast jobs arrive.
        guaranteed: How many jobs are guaranteed, drawn from the seed; None leaves it to the
            workload.
        recorded: Whether running times are those that the workload recorded, wherever jobs run.
        faults: What goes wrong.
        period_seconds: Longest virtual time between two decisions.
        report_seconds: How often a job tells how far it is.
        window: Of the Philly trace.
        synthetic: What is generated.
        random_plans: Whether jobs that are drawn ask for any plan or the fastest.
    """

    workload: str
    data: Path
    cluster: Cluster = field(default_factory=Cluster)
    switch_seconds: float = SWITCH_SECONDS
    load: float = 1.0
    guaranteed: int | None = None
    recorded: bool = False
    faults: Faults = field(default_factory=Faults)
    period_seconds: float = 60.0
    report_seconds: float = REPORT_SECONDS
    window: Window = field(default_factory=Window)
    synthetic: Synthetic = field(default_factory=Synthetic)
    random_plans: bool = True


@dataclass(frozen=True, slots=True)
class Played:
    """One run that is over.

    Attributes:
        summary: Its numbers.
        notes: How its workload was made, and what the policy assumes.
        wall_seconds: How long it took here.
        folder: Where it was written; None if it was not.
    """

    summary: Summary
    notes: tuple[str, ...]
    wall_seconds: float
    folder: Path | None

    @property
    def events_per_second(self) -> float:
        """How fast events were played."""
        return self.summary.events / self.wall_seconds if self.wall_seconds else 0.0


def scenario_for(study: Study, seed: int) -> tuple[Scenario, MeasuredTable]:
    """The study's scenario with its luck drawn from a seed, and the step times.

    Raises:
        ValueError: The study is not possible, or a file is wrong.
        OSError: A file cannot be read.
    """
    table = read_table(study.data / "rubick" / "measured")
    jobs, notes = _jobs(study, table, seed)
    if study.load != 1.0:
        jobs = at_load(jobs, study.load)
        notes.append(f"jobs arrive {study.load:g} times as fast")
    count = study.guaranteed
    if count is None and study.workload == "mt":
        count = min(GUARANTEED_OF_MT, len(jobs))
    if count is not None:
        jobs = with_guaranteed(jobs, count, seed)
        notes.append(f"{count} of {len(jobs)} jobs are guaranteed, drawn from the seed")
    _refuse_too_large(jobs, study.cluster)
    scenario = scenario_of(
        jobs,
        table,
        seed=seed,
        cluster=study.cluster,
        switch_seconds=study.switch_seconds,
        report_seconds=study.report_seconds,
        faults=study.faults,
        notes=notes,
    )
    return (as_recorded(scenario, jobs) if study.recorded else scenario), table


def _refuse_too_large(jobs: Sequence[TraceJob], cluster: Cluster) -> None:
    there = cluster.nodes * cluster.accelerators
    job = max(jobs, key=lambda each: each.accelerators)
    if job.accelerators > there:
        raise ValueError(
            f"{job.name} asks for {counted(job.accelerators, 'accelerator')}, {cluster.nodes} "
            "nodes have "
            f"{there}; more nodes would help"
        )


def _jobs(study: Study, table: MeasuredTable, seed: int) -> tuple[list[TraceJob], list[str]]:
    name, traces = study.workload, study.data / "traces"
    most = min(64, study.cluster.nodes * study.cluster.accelerators)
    drawing = Drawing(table, seed, most, study.random_plans)
    asked = "any of its size" if study.random_plans else "the fastest of its size"
    drawn = f"models are drawn from {', '.join(table.models)}; the plan asked for is {asked}"
    if name in RUBICK:
        file = "workload-bp.csv" if name == "bp" else "workload-base.csv"
        return read_rubick(study.data / "rubick" / "workloads" / file, table), [
            f"the 406 jobs of Rubick's {file}"
        ]
    if name == "philly":
        jobs = read_philly(traces / "philly.csv", study.window, drawing)
        window = study.window
        told = f"{len(jobs)} jobs of {window.hours:g} h from {window.start:%Y-%m-%d %H:%M} UTC"
        return jobs, [f"Philly: {told}", drawn]
    if name in SIA:
        file = f"{name.removeprefix('sia-')}.csv"
        return read_sia(traces / "sia" / file, drawing), [RULE]
    if name == "synthetic":
        jobs = generate(study.synthetic, drawing)
        rate = study.synthetic.jobs_per_hour
        return jobs, [f"{len(jobs)} synthetic jobs, {rate:g} an hour", drawn]
    if Path(name).suffix == ".csv":
        return read_rubick(Path(name), table), [f"the jobs of {Path(name).name}"]
    raise ValueError(
        f"wanted a workload of {', '.join(WORKLOADS)}, or a CSV file like Rubick's, got {name!r}"
    )


def play(
    study: Study,
    policy: str,
    seed: int,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Played:
    """Plays one run to its end and writes it.

    Args:
        study: What is played.
        policy: Name of the policy.
        seed: What chance is drawn from.
        folder: Where a folder for it is made; nothing is written if None.
        progress: Told how many jobs have ended, of how many.

    Raises:
        ValueError: The study is not possible, or a file is wrong.
        OSError: A file cannot be read or written.
    """
    scenario, table = scenario_for(study, seed)
    total = len(scenario.arrivals)

    def told(ended: int, at: Instant) -> None:
        if progress is not None:
            progress(ended, total)

    decides = policy_named(policy, table, study.switch_seconds)
    notes = (*scenario.notes, *assumptions_of(decides))
    began = perf_counter()
    result = simulate_to_the_end(
        scenario,
        decides,
        name=policy,
        period_seconds=study.period_seconds,
        progress=told,
    )
    took = perf_counter() - began
    outcomes = job_outcomes(scenario, result.jobs, result.rows, result.ended_at)
    summary = summary_of(scenario, result, outcomes, policy)
    own = None if folder is None else folder / f"{policy}-seed{seed}"
    if own is not None:
        write_run(own, summary, outcomes, result.rows, notes)
    return Played(summary, notes, took, own)


# -- side by side -----------------------------------------------------------------------------

_ended: "SynchronizedArray[int] | None" = None
"""In a process that plays: how many jobs of each run have ended, and how many there are, in turn;
shared with the process that shows it.
"""


def _begin(shared: "SynchronizedArray[int]") -> None:
    global _ended
    _ended = shared


def _play_shared(study: Study, policy: str, seed: int, folder: Path | None, place: int) -> Played:
    def told(ended: int, total: int) -> None:
        if _ended is not None:
            _ended[2 * place], _ended[2 * place + 1] = ended, total

    return play(study, policy, seed, folder, told)


def play_all(
    study: Study,
    policies: Sequence[str],
    seeds: Sequence[int],
    *,
    folder: Path | None = None,
    processes: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Iterator[Played]:
    """Plays every policy with every seed, and gives what is over, in order of policies and seeds.

    Args:
        study: What is played.
        policies: Names of policies.
        seeds: Seeds.
        folder: Where each run's folder is made; nothing is written if None.
        processes: How many runs are played at once.
        progress: Told the share of all jobs that have ended, now and then.
    """
    runs = [(policy, seed) for policy in policies for seed in seeds]
    if processes <= 1 or len(runs) == 1:
        for number, (policy, seed) in enumerate(runs):

            def told(ended: int, total: int, number: int = number) -> None:
                if progress is not None:
                    progress((number + ended / total) / len(runs))

            yield play(study, policy, seed, folder, told)
        return
    context = get_context("spawn")
    shared = context.Array("q", 2 * len(runs))
    with ProcessPoolExecutor(
        min(processes, len(runs)), context, initializer=_begin, initargs=(shared,)
    ) as pool:
        futures = [
            pool.submit(_play_shared, study, policy, seed, folder, place)
            for place, (policy, seed) in enumerate(runs)
        ]
        try:
            for future in futures:
                _watch(future, shared, len(runs), progress)
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _watch(
    future: "Future[Played]",
    shared: "SynchronizedArray[int]",
    runs: int,
    progress: Callable[[float], None] | None,
) -> None:
    while not wait([future], _POLL_SECONDS, FIRST_COMPLETED).done:
        if progress is not None:
            shares = (shared[2 * i] / max(1, shared[2 * i + 1]) for i in range(runs))
            progress(sum(shares) / runs)


def window_from(start: datetime | None, hours: float, jobs: int | None) -> Window:
    """The window of the Philly trace that begins at ``start``, or at its busiest 12 h."""
    return Window(start or BUSIEST, hours, jobs)
