"""Jobs of traces: each trains a measured model and asks for a number and a plan of its table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import log

from controlplane.baselines.layouts import requested_way
from controlplane.domain.chance import draw
from controlplane.domain.clock import Instant, seconds
from controlplane.domain.ids import AcceleratorId, JobUid, NodeId, QueueName
from controlplane.domain.job import AcceleratorRequest, Job, JobSpec, ServiceClass
from controlplane.domain.node import Accelerator, Node
from controlplane.domain.queue import DEFAULT_QUEUE, Queue
from controlplane.domain.step_times import Way
from headrace.api.plan import ExecutionPlan
from simulator.measured_table import ACCELERATORS_OF_A_NODE, MeasuredTable
from simulator.scenario import Arrival, Costs, Faults, Scenario

ACCELERATORS_MAX = 64
"""Most accelerators that the tables know of one job."""

GUARANTEED_QUEUE = QueueName("guaranteed")
BEST_EFFORT_QUEUE = QueueName("best-effort")

SWITCH_SECONDS = 78.0
"""What a start or a change takes: the mean that Rubick's paper measured (section 7.3)."""

REPORT_SECONDS = 600.0
"""How often a job tells how far it is. Each report is an event and a decision."""

_RETRIES = 1_000


@dataclass(frozen=True, slots=True)
class TraceJob:
    """A job of a trace.

    Attributes:
        name: Unique in the trace.
        at_seconds: When it is submitted, from the beginning of the trace.
        model_type: Which measured model it trains.
        accelerators: How many it asks for.
        plan: Under which plan.
        steps: Until it is done.
        recorded_seconds: How long it ran according to the trace, alone and without its start; 0
            where the trace does not say.
        guaranteed: Whether the speed of its request is promised to it.
    """

    name: str
    at_seconds: float
    model_type: str
    accelerators: int
    plan: ExecutionPlan
    steps: int
    recorded_seconds: float = 0.0
    guaranteed: bool = False


@dataclass(frozen=True, slots=True)
class Cluster:
    """The nodes on which a trace is played, all alike.

    Attributes:
        nodes: How many.
        accelerators: Of each.
        cpu_cores: Of each.
        host_memory_bytes: Of each.
    """

    nodes: int = 8
    accelerators: int = ACCELERATORS_OF_A_NODE
    cpu_cores: int = 96
    host_memory_bytes: int = 1600 * 10**9


def requested(table: MeasuredTable, model_type: str, plan: ExecutionPlan) -> Way | None:
    """How the table's model runs under just this plan; see ``requested_way``."""
    spec = _spec(table, TraceJob("", 0.0, model_type, plan.ranks, plan, 1))
    return requested_way(table, spec, table.kind)


def scenario_of(
    jobs: Sequence[TraceJob],
    table: MeasuredTable,
    *,
    seed: int = 1,
    cluster: Cluster | None = None,
    switch_seconds: float = SWITCH_SECONDS,
    report_seconds: float = REPORT_SECONDS,
    faults: Faults | None = None,
    notes: Sequence[str] = (),
) -> Scenario:
    """The scenario in which these jobs arrive.

    Args:
        jobs: The jobs, in any order.
        table: What steps take.
        seed: What chance is drawn from.
        cluster: On what.
        switch_seconds: What a start or a change takes; accelerators are held meanwhile.
        report_seconds: How often a job tells how far it is.
        faults: What goes wrong; nothing if None.
        notes: Sentences on how the jobs were made.
    """
    nodes = nodes_of(cluster or Cluster(), table.kind)
    arrivals = [
        Arrival(
            Instant(seconds(job.at_seconds)),
            Job(JobUid(job.name), "trace", job.name, 1, _spec(table, job)),
        )
        for job in sorted(jobs, key=lambda each: each.at_seconds)
    ]
    queues: tuple[Queue, ...] = ()
    if any(job.guaranteed for job in jobs):
        queues = (Queue(GUARANTEED_QUEUE, ACCELERATORS_MAX), Queue(BEST_EFFORT_QUEUE))
        arrivals = [_in_a_tenants_queue(arrival) for arrival in arrivals]
    return Scenario(
        seed,
        nodes,
        tuple(arrivals),
        queues,
        faults or Faults(),
        Costs.of_a_switch(switch_seconds, progressSeconds=report_seconds),
        table,
        (*notes, f"every start and every change holds its accelerators {switch_seconds:g} s"),
    )


def _in_a_tenants_queue(arrival: Arrival) -> Arrival:
    spec = arrival.job.spec
    own = spec.service_class is ServiceClass.GUARANTEED
    spec = replace(spec, queue=GUARANTEED_QUEUE if own else BEST_EFFORT_QUEUE)
    return replace(arrival, job=replace(arrival.job, spec=spec))


def as_recorded(scenario: Scenario, jobs: Sequence[TraceJob]) -> Scenario:
    """The same scenario, in which each job's steps take what the trace recorded, wherever it runs
    and under whatever plan: its running time is the recorded one, after its start.

    Args:
        scenario: Of these jobs.
        jobs: What was recorded of them.
    """
    recorded = {job.name: job.recorded_seconds / job.steps for job in jobs}
    arrivals = tuple(replace(a, pace=recorded[a.job.name]) for a in scenario.arrivals)
    costs = scenario.costs.model_copy(update={"scalingExponent": 0.0})
    return replace(scenario, arrivals=arrivals, costs=costs, times=None)


def with_guaranteed(jobs: Sequence[TraceJob], count: int, seed: int) -> list[TraceJob]:
    """The same jobs, ``count`` of them guaranteed, drawn from the seed; the others best effort."""
    if not 0 <= count <= len(jobs):
        raise ValueError(f"wanted 0 to {len(jobs)} guaranteed jobs, got {count}")
    drawn = sorted(jobs, key=lambda job: draw(seed, "guaranteed", job.name))
    chosen = {job.name for job in drawn[:count]}
    return [replace(job, guaranteed=job.name in chosen) for job in jobs]


def at_load(jobs: Sequence[TraceJob], load: float) -> list[TraceJob]:
    """The same jobs arriving ``load`` times as fast; 2 puts them into half the time."""
    if load <= 0:
        raise ValueError(f"wanted a load above 0, got {load:g}")
    return [replace(job, at_seconds=job.at_seconds / load) for job in jobs]


def gaps(jobs: Sequence[TraceJob]) -> list[float]:
    """Seconds between arrivals."""
    times = sorted(job.at_seconds for job in jobs)
    return [later - earlier for earlier, later in pairwise(times)]


def exponential(mean: float, seed: int, *names: object) -> float:
    """A wait drawn from an exponential distribution."""
    return -log(1.0 - draw(seed, *names)) * mean


def nodes_of(cluster: Cluster, kind: str) -> tuple[Node, ...]:
    """The nodes; their names sort as they stand."""
    width = len(str(cluster.nodes - 1))
    each = cluster.cpu_cores // cluster.accelerators
    memory = cluster.host_memory_bytes // cluster.accelerators
    return tuple(
        Node(
            NodeId(name),
            tuple(
                Accelerator(
                    AcceleratorId(f"{name}-{i}"),
                    kind,
                    cpu_cores=tuple(range(i * each, (i + 1) * each)),
                    host_memory_bytes=memory,
                )
                for i in range(cluster.accelerators)
            ),
            address=name,
        )
        for name in (f"node-{number:0{width}}" for number in range(cluster.nodes))
    )


def _spec(table: MeasuredTable, job: TraceJob) -> JobSpec:
    chosen = ServiceClass.GUARANTEED if job.guaranteed else ServiceClass.BEST_EFFORT
    return JobSpec(
        queue=DEFAULT_QUEUE,
        accelerators=AcceleratorRequest(
            1, ACCELERATORS_MAX, type=table.kind, requested=job.accelerators
        ),
        service_class=chosen,
        global_batch_size=table.global_batch_size(job.model_type),
        plans=table.plans(job.model_type),
        model_type=job.model_type,
        requested_plan=job.plan,
        steps=job.steps,
        max_retries=_RETRIES,
    )
