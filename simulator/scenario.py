"""A scenario: nodes, jobs with their arrival times, and the luck that they have. Read from YAML.

Unknown keys are refused. Durations are seconds of virtual time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from controlplane.domain.chance import draw, draw_between
from controlplane.domain.clock import Instant, seconds
from controlplane.domain.ids import AcceleratorId, JobUid, NodeId, QueueName
from controlplane.domain.job import AcceleratorRequest, Job, JobSpec, ServiceClass
from controlplane.domain.node import Accelerator, Node
from controlplane.domain.queue import DEFAULT_QUEUE, Queue
from controlplane.domain.step_times import StepTimes
from headrace.api.counted import counted
from headrace.api.manifest_part import broken
from headrace.api.manifest_source import Finding, documents_in
from headrace.api.racks import RACK_LABEL
from headrace.api.refusal import Problem, problems_in
from simulator.physics import ScaledStepTimes


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeGroup(_Strict):
    """Nodes of one kind. ``nodesPerRack`` of them share a rack, and ``acceleratorsPerIsland`` of
    those of a node are joined by NVLink; 0 where nothing of that is told. A rack can also be told
    by its label.
    """

    count: PositiveInt = 1
    accelerators: PositiveInt = 8
    type: str = "nvidia-h100"
    labels: dict[str, str] = Field(default_factory=dict)
    nodesPerRack: int = Field(0, ge=0)  # noqa: N815 - the YAML keys are those of manifests
    acceleratorsPerIsland: int = Field(0, ge=0)  # noqa: N815

    @model_validator(mode="after")
    def _of_one_rack(self) -> "NodeGroup":
        if self.nodesPerRack and RACK_LABEL in self.labels:
            raise ValueError(
                f"wanted nodesPerRack or the label {RACK_LABEL}, got both: each names the racks"
            )
        return self


class JobGroup(_Strict):
    """Jobs of one kind. They arrive one after the other, from ``arrivalSeconds`` on, with gaps
    drawn from an exponential distribution of mean ``everySeconds`` (0: all at once).
    """

    name: str
    count: PositiveInt = 1
    arrivalSeconds: float = Field(0.0, ge=0)  # noqa: N815 - the YAML keys are those of manifests
    everySeconds: float = Field(0.0, ge=0)  # noqa: N815
    minimum: PositiveInt = 1
    maximum: PositiveInt = 1
    globalBatchSize: int = Field(0, ge=0)  # noqa: N815
    steps: PositiveInt = 1000
    stepSeconds: PositiveFloat = 1.0  # noqa: N815
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    guaranteed: bool = False
    type: str = ""
    failsAtStep: int = Field(0, ge=0)  # noqa: N815
    maxRetries: int = Field(3, ge=0)  # noqa: N815

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "maximum" in self.model_fields_set and self.maximum < self.minimum:
            sentence = f"wanted {self.minimum} or more, which is the minimum, got {self.maximum}"
            raise broken("maximum", sentence)
        most, batch = max(self.minimum, self.maximum), self.globalBatchSize
        if batch and not any(batch % n == 0 for n in range(self.minimum, most + 1)):
            sizes = f"from {self.minimum} to {most}"
            sentence = f"no number of accelerators {sizes} divides {counted(batch, 'sample')}"
            raise broken("globalBatchSize", sentence)
        return self


class QueueLimits(_Strict):
    """What a queue's jobs may hold: ``quota`` accelerators are its own, and ``borrow`` more may
    they hold while no other queue's quota needs them. None for no limit of either.
    """

    quota: int | None = Field(None, ge=0)
    borrow: int | None = Field(0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.quota is None and self.borrow != 0:
            sentence = "wanted none without a quota: there is nothing that it could borrow"
            raise broken("borrow", sentence)
        return self


class Faults(_Strict):
    """What goes wrong, drawn from the seed.

    A run fails ``runFailuresPerDay`` times in a day of training; ``stragglerShare`` of all runs are
    ``stragglerFactor`` times slower; every run's step time is up to ``stepNoise`` longer or shorter
    than the step times say (0.05 for 5 %).
    """

    nodeLossesPerDay: float = Field(0.0, ge=0)  # noqa: N815
    nodeAwaySeconds: PositiveFloat = 600.0  # noqa: N815
    runFailuresPerDay: float = Field(0.0, ge=0)  # noqa: N815
    stragglerShare: float = Field(0.0, ge=0, le=1)  # noqa: N815
    stragglerFactor: float = Field(2.0, ge=1)  # noqa: N815
    stepNoise: float = Field(0.0, ge=0, lt=1)  # noqa: N815
    lateShare: float = Field(0.0, ge=0, le=1)  # noqa: N815
    lateSeconds: float = 5.0  # noqa: N815
    doubledShare: float = Field(0.0, ge=0, le=1)  # noqa: N815


class Costs(_Strict):
    """What starting and stopping takes.

    Units that are to join a running job come up while it trains, in ``joinSeconds``; if that is
    None, in ``startSeconds``.
    """

    startSeconds: float = Field(20.0, ge=0)  # noqa: N815
    checkpointSeconds: float = Field(5.0, ge=0)  # noqa: N815
    planChangeSeconds: float = Field(1.5, ge=0)  # noqa: N815
    joinSeconds: float | None = Field(None, ge=0)  # noqa: N815
    messageSeconds: float = Field(0.05, ge=0)  # noqa: N815
    scalingExponent: float = Field(0.9, ge=0, le=1)  # noqa: N815
    checkpointEverySteps: PositiveInt = 100  # noqa: N815
    progressSeconds: PositiveFloat = 60.0  # noqa: N815

    @classmethod
    def of_a_switch(cls, switch_seconds: float, **others: Any) -> "Costs":
        """Every start and every change of plan, size or place takes ``switch_seconds``, in which
        the job holds what it is given and does not train; all else takes no time. So a change
        costs the same by a stop and a start as in memory.

        Args:
            switch_seconds: Its length.
            others: More of these costs.
        """
        return cls(
            startSeconds=switch_seconds,
            planChangeSeconds=switch_seconds,
            joinSeconds=0.0,
            checkpointSeconds=0.0,
            messageSeconds=0.0,
            **others,
        )


class ScenarioFile(_Strict):
    """The whole file."""

    nodes: Annotated[list[NodeGroup], Field(min_length=1)]
    jobs: list[JobGroup] = Field(default_factory=list)
    queues: dict[str, QueueLimits] = Field(default_factory=dict)
    faults: Faults = Faults()
    costs: Costs = Costs()

    @model_validator(mode="after")
    def _check(self) -> Self:
        """What no job of the whole could ever have is refused, the first such thing."""
        known = {DEFAULT_QUEUE, *self.queues}
        names: set[str] = set()
        for place, job in enumerate(self.jobs):
            at = f"jobs.{place}"
            if job.name in names:
                raise broken(f"{at}.name", f"there are jobs {job.name} above already")
            names.add(job.name)
            if job.queue not in known:
                there = ", ".join(sorted(known))
                raise broken(f"{at}.queue", f"there is no queue {job.queue!r}; there are {there}")
            kinds = {group.type for group in self.nodes}
            if job.type and job.type not in kinds:
                there = ", ".join(sorted(kinds)) or "no nodes at all"
                raise broken(f"{at}.type", f"no node has {job.type!r}; there are {there}")
            most = max(self._accelerators(kind) for kind in kinds if job.type in ("", kind))
            if job.minimum > most:
                sentence = f"wanted at most {most}, which nodes of one type have, got {job.minimum}"
                raise broken(f"{at}.minimum", sentence)
        return self

    def _accelerators(self, kind: str) -> int:
        return sum(each.count * each.accelerators for each in self.nodes if each.type == kind)

    def notes(self) -> Iterator[str]:
        """What is not wrong and may not be meant."""
        every = sum(each.count * each.accelerators for each in self.nodes)
        for name, limits in sorted(self.queues.items()):
            if limits.quota is not None and limits.quota > every:
                yield (
                    f"the quota of queue {name} is {counted(limits.quota, 'accelerator')} and all "
                    "nodes have "
                    f"{every}: it limits nothing"
                )
        together = sum(min(each.quota or 0, every) for each in self.queues.values())
        if together > every:
            yield (
                f"the quotas of all queues are more than the {every} accelerators that there are: "
                "not every queue can have its own at the same time"
            )


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job, when it is submitted, and how fast it trains.

    Attributes:
        at: Virtual instant of submission.
        job: The job.
        pace: How many times as long as the scenario's step times say a step of it takes. For a
            scenario without measured ones: seconds of a step on one accelerator.
        fails_at_step: Step at which every attempt fails; 0 for never.
        times: What its steps take, if the scenario's step times are not for it.
        endless: Whether nobody knows when it ends, so that it runs until it is ended.
    """

    at: Instant
    job: Job
    pace: float = 1.0
    fails_at_step: int = 0
    times: StepTimes | None = None
    endless: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario with all its luck drawn.

    Attributes:
        seed: What the luck that is left is drawn from.
        nodes: The cluster.
        arrivals: The jobs, by when they are submitted.
        queues: Tenants' queues.
        faults: What goes wrong.
        costs: What starting and stopping takes.
        times: What steps take; None for what ``costs.scalingExponent`` says.
        tells: Whether jobs tell what their plans take, as live ones do.
        notes: Sentences on how it was made, to be printed with every result.
    """

    seed: int
    nodes: tuple[Node, ...]
    arrivals: tuple[Arrival, ...]
    queues: tuple[Queue, ...] = ()
    faults: Faults = field(default_factory=Faults)
    costs: Costs = field(default_factory=Costs)
    times: StepTimes | None = None
    notes: tuple[str, ...] = ()
    tells: bool = False

    @property
    def step_times(self) -> StepTimes:
        """What steps take."""
        return self.times or ScaledStepTimes(self.costs.scalingExponent)


def read(path: Path, seed: int) -> Scenario:
    """The scenario in ``path``, with its luck drawn from ``seed``.

    Raises:
        ValueError: The file is not a scenario; each problem with its line and field.
        OSError: The file cannot be read.
    """
    documents, findings = documents_in(path.read_text(encoding="utf-8"), str(path))
    if not findings and len(documents) != 1:
        sentence = f"wanted one scenario, found {len(documents) or 'no'} documents"
        findings = (Finding(str(path), 0, Problem((), sentence)),)
    if not findings:
        try:
            return build(ScenarioFile.model_validate(documents[0].value), seed)
        except ValidationError as error:
            problems = problems_in(error, ScenarioFile.model_json_schema())
            findings = tuple(documents[0].finding(each) for each in problems)
    raise ValueError("\n".join(map(str, findings)))


def build(described: ScenarioFile, seed: int) -> Scenario:
    """Draws what ``described`` leaves to chance."""
    queues = tuple(
        Queue(QueueName(name), each.quota, borrowing_accelerators=each.borrow)
        for name, each in sorted(described.queues.items())
    )
    arrivals = [a for group in described.jobs for a in _arrivals(group, seed)]
    arrivals.sort(key=lambda a: (a.at, a.job.uid))
    nodes = [
        _node(f"node-{g}-{i}", group, rack_name(f"rack-{g}", i, group.nodesPerRack))
        for g, group in enumerate(described.nodes)
        for i in range(group.count)
    ]
    return Scenario(
        seed,
        tuple(nodes),
        tuple(arrivals),
        queues,
        described.faults,
        described.costs,
        notes=tuple(described.notes()),
    )


def _node(name: str, group: NodeGroup, rack: str) -> Node:
    accelerators = tuple(
        Accelerator(
            AcceleratorId(f"{name}-gpu-{i}"),
            group.type,
            cpu_cores=(i,),
            island=island_name(i, group.acceleratorsPerIsland),
        )
        for i in range(group.accelerators)
    )
    labels = group.labels | ({RACK_LABEL: rack} if rack else {})
    return Node(NodeId(name), accelerators, labels=tuple(sorted(labels.items())), address=name)


def rack_name(prefix: str, number: int, nodes: int) -> str:
    """The rack of the node of this number where so many share one; empty where none does."""
    return f"{prefix}-{number // nodes}" if nodes else ""


def island_name(number: int, accelerators: int) -> str:
    """The NVLink island of the accelerator of this number, likewise."""
    return str(number // accelerators) if accelerators else ""


def _arrivals(group: JobGroup, seed: int) -> list[Arrival]:
    arrivals = []
    at = group.arrivalSeconds
    for index in range(group.count):
        name = f"{group.name}-{index}"
        if index and group.everySeconds:
            at += -log(1.0 - draw(seed, "gap", name)) * group.everySeconds
        speed = draw_between(0.9, 1.1, seed, "speed", name)
        arrivals.append(
            Arrival(
                Instant(seconds(at)),
                Job(JobUid(f"uid-{name}"), "default", name, 1, _spec(group)),
                group.stepSeconds * speed,
                group.failsAtStep,
            )
        )
    return arrivals


def _spec(group: JobGroup) -> JobSpec:
    chosen: dict[str, Any] = {}
    if group.guaranteed:
        chosen["service_class"] = ServiceClass.GUARANTEED
    return JobSpec(
        queue=QueueName(group.queue),
        accelerators=AcceleratorRequest(
            group.minimum, max(group.minimum, group.maximum), type=group.type
        ),
        priority=group.priority,
        elastic=group.maximum > group.minimum,
        global_batch_size=group.globalBatchSize,
        steps=group.steps,
        max_retries=group.maxRetries,
        **chosen,
    )
