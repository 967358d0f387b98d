"""Clusters full of jobs for the round's benchmark: the artifact's models, and Sia-shaped ones."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from controlplane.domain.clock import Instant, after, seconds
from controlplane.domain.event import (
    Event,
    JobProgressed,
    JobSubmitted,
    NodeRegistered,
    PolicyChanged,
    UnitStarted,
)
from controlplane.domain.ids import AcceleratorId, JobUid, NodeId, SequenceNumber, Term
from controlplane.domain.job import AcceleratorRequest, Job, JobSpec
from controlplane.domain.node import Accelerator, Node
from controlplane.domain.policy import PolicySettings
from controlplane.domain.queue import DEFAULT_QUEUE
from controlplane.domain.record import Progress
from controlplane.domain.step_times import Shares, StepTimes, Way
from controlplane.engine.cycle import run_cycle
from controlplane.engine.state import ClusterState, SequencedEvent
from controlplane.rubick.policy import Rubick
from headrace.api.plan import ExecutionPlan
from headrace.api.racks import RACK_LABEL
from simulator.measured_table import MeasuredTable

POLICY = "rubick"
_LARGE = {"llama7": 16, "llama30": 32}


class World:
    """A cluster played by agents that do at once what they are told."""

    def __init__(self, nodes: Sequence[tuple[str, int]], nodes_per_rack: int = 0) -> None:
        """Of so many accelerators of one type each, and so many in a rack, if they tell one."""
        self.now = Instant(seconds(1_000_000))
        self.state = ClusterState.empty()
        self._sequence = 0
        self.fold([PolicyChanged(PolicySettings(policy=POLICY))])
        self.fold(
            [
                NodeRegistered(
                    Node(
                        NodeId(f"node-{i}"),
                        tuple(Accelerator(AcceleratorId(f"{i}-{k}"), kind) for k in range(size)),
                        ((RACK_LABEL, f"r{i // nodes_per_rack}"),) if nodes_per_rack else (),
                    )
                )
                for i, (kind, size) in enumerate(nodes)
            ]
        )

    def fold(self, events: Sequence[Event]) -> None:
        """Numbers and folds what happened."""
        numbered = []
        for event in events:
            self._sequence += 1
            at = SequenceNumber(self._sequence)
            numbered.append(SequencedEvent(at, replace(event, at=self.now)))
        self.state = self.state.fold(numbered)

    def starts(self, policy: Rubick) -> None:
        """One round is carried out; ten minutes later everybody who got something trains."""
        outcome = run_cycle(self.state, self.now, {POLICY: policy}, Term(1))
        if outcome.refused:
            raise SystemExit(f"the policy was refused: {outcome.refused[0]}")
        self.fold([outcome.decided])
        said: list[Event] = []
        for uid, record in self.state.jobs.items():
            attempt = record.attempt
            if attempt is not None:
                units = attempt.placement.units
                said += [UnitStarted(uid, attempt.number, u.index, node=u.node) for u in units]
                told = Progress(1, 0, 1.0, 0.5)
                said.append(JobProgressed(uid, attempt.number, told, node=units[0].node))
        self.fold(said)
        self.now = after(self.now, seconds(600))


def _submitted(name: str, spec: JobSpec) -> Event:
    return JobSubmitted(Job(JobUid(name), "default", name, 1, spec))


def artifact_world(
    table: MeasuredTable, accelerators: int, jobs: int, seed: int, nodes_per_rack: int = 0
) -> World:
    """Jobs of the artifact's models, one in eleven a LLaMA, on nodes of 8 A800."""
    luck = random.Random(seed)
    world = World([(table.kind, 8)] * (accelerators // 8), nodes_per_rack)
    plans = {model: table.plans(model) for model in table.models}
    names = ["vit", "roberta", "bert", "t5", "gpt2"] * 4 + list(_LARGE)
    events = []
    for j in range(jobs):
        model = luck.choice(names)
        asked = _LARGE.get(model) or luck.choice([1, 2, 4, 8])
        spec = JobSpec(
            queue=DEFAULT_QUEUE,
            accelerators=AcceleratorRequest(1, 64, requested=asked),
            model_type=model,
            plans=plans[model],
            global_batch_size=table.global_batch_size(model),
            steps=int(10 ** luck.uniform(2, 5)),
        )
        events.append(_submitted(f"job-{j}", spec))
    world.fold(events)
    return world


@dataclass(frozen=True)
class SiaShaped:
    """Step times like the goodputs of Sia's artifact: three types on nodes of 4, 8 and 8; sizes are
    powers of two up to a node, then whole nodes up to 64; every job its own speed and exponent.

    Attributes:
        goodput: Of each job at one accelerator, by type, and the exponent of its scaling.
    """

    goodput: Mapping[str, tuple[Mapping[str, float], float]]
    _known: dict[tuple[str, str], tuple[Way, ...]] = field(default_factory=dict)

    @cached_property
    def layouts(self) -> Mapping[str, tuple[Shares, ...]]:
        """Of each type."""
        found = {}
        for kind, (size, _) in TYPES.items():
            small = [(1 << i,) for i in range(size.bit_length()) if 1 << i <= size]
            found[kind] = (*small, *((size,) * k for k in range(2, 64 // size + 1)))
        return found

    def ways(self, spec: JobSpec, kind: str) -> tuple[Way, ...]:
        """One for each layout of the type."""
        key = (spec.model_type, kind)
        known = self._known.get(key)
        if known is None:
            every = (self._way(spec, kind, shares) for shares in self.layouts[kind])
            known = self._known[key] = tuple(every)
        return known

    def way(self, spec: JobSpec, kind: str, plan: ExecutionPlan, shares: Shares) -> Way | None:
        """One of them."""
        if shares not in self.layouts[kind] or plan.ranks != sum(shares):
            return None
        return self._way(spec, kind, shares)

    def _way(self, spec: JobSpec, kind: str, shares: Shares) -> Way:
        speeds, exponent = self.goodput[spec.model_type]
        count = sum(shares)
        taken = 1.0 / (speeds[kind] * count**exponent)
        return Way(ExecutionPlan(data_parallel=count), shares, taken, taken)


TYPES: Mapping[str, tuple[int, float]] = {"t4": (4, 1.0), "rtx": (8, 1.6), "a100": (8, 3.2)}
"""Of each type how large its nodes are, and how fast it is."""

_SHARES = (0.375, 0.375, 0.25)


def sia_shaped_world(
    accelerators: int, jobs: int, seed: int, nodes_per_rack: int = 0
) -> tuple[World, StepTimes]:
    """Goodput of a type: its speed, a lognormal of 0.6, and ``n ** uniform(0.55, 0.98)``."""
    luck = random.Random(seed)
    nodes = [
        (kind, size)
        for (kind, (size, _)), share in zip(TYPES.items(), _SHARES, strict=True)
        for _ in range(int(accelerators * share) // size)
    ]
    world = World(nodes, nodes_per_rack)
    goodput: dict[str, tuple[Mapping[str, float], float]] = {}
    events = []
    for j in range(jobs):
        name = f"job-{j}"
        speeds = {k: speed * luck.lognormvariate(0.0, 0.6) for k, (_, speed) in TYPES.items()}
        goodput[name] = (speeds, luck.uniform(0.55, 0.98))
        spec = JobSpec(
            queue=DEFAULT_QUEUE,
            accelerators=AcceleratorRequest(1, 64),
            model_type=name,
            plans=_PLANS,
            global_batch_size=_BATCH,
            steps=int(10 ** luck.uniform(2, 5)),
        )
        events.append(_submitted(name, spec))
    world.fold(events)
    return world, SiaShaped(goodput)


_BATCH = 4 * 720_720
"""All numbers of accelerators divide it."""

_PLANS = tuple(ExecutionPlan(data_parallel=n) for n in (1, 2, *range(4, 65, 4)))
