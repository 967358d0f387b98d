"""All that was known at one instant: what a policy may see."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.domain.clock import Instant
from controlplane.domain.conditions import Conditions
from controlplane.domain.ids import AcceleratorId, JobUid, NodeId, QueueName
from controlplane.domain.memory import Memory
from controlplane.domain.memory_loss import MemoryLoss
from controlplane.domain.node import Accelerator
from controlplane.domain.observation import Observation
from controlplane.domain.proposal import Proposal
from controlplane.domain.queue import Queue
from controlplane.domain.record import JobRecord, NodeRecord
from controlplane.domain.step_time_fit import StepTimeFit
from controlplane.domain.switch_price import SwitchPrice

Slot = tuple[NodeId, AcceleratorId]

Offer = Mapping[str, tuple[Accelerator, ...]]
"""A node's healthy accelerators by type; empty if nothing may be placed there."""


@dataclass(frozen=True, slots=True)
class TypeMemory:
    """What accelerators of a type tell of their memory.

    Attributes:
        least: The least of either kind; None if none tells anything.
        every: What there is, each once; None among them for those that tell nothing.
    """

    least: Memory | None
    every: frozenset[Memory | None]


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """A frozen view of the cluster.

    Attributes:
        at: The instant it holds for.
        jobs: Every job that is not forgotten, in order of submission.
        nodes: Every known node, in order of registration.
        queues: Every queue.
        holders: Who holds each accelerator that is not free: attempts not released, and strays; in
            no certain order.
        usable: What each node offers to new work, in order of registration.
        racks: The rack of each node that tells one.
        memory: What the accelerators of each type that is offered tell of it.
        observations: What plans take, as jobs told in passing, by what it is about.
        memory_losses: Plans under which memory ran out, by what was trained on what.
        switch_prices: What changes of plan or place cost so far, by their sort.
        conditions: What is wrong with nodes.
        fits: What is known of steps, by type of model and of accelerator; see ``fit_key``.
        knobs: What people set of the policies' knobs, by whole name.
        proposal: What a longer search found last; None if that was too long ago.
        set_aside: Jobs that a policy is not asked about now, because what it decided about them was
            refused: they are not among ``jobs``, strays hold what they have, and their queues hold
            it too.
    """

    at: Instant
    jobs: Mapping[JobUid, JobRecord]
    nodes: Mapping[NodeId, NodeRecord]
    queues: Mapping[QueueName, Queue]
    holders: Mapping[Slot, JobUid]
    usable: Mapping[NodeId, Offer]
    racks: Mapping[NodeId, str]
    memory: Mapping[str, TypeMemory]
    observations: Mapping[str, Observation]
    switch_prices: Mapping[str, SwitchPrice]
    conditions: Conditions
    fits: Mapping[str, StepTimeFit]
    knobs: Mapping[str, float] = field(default_factory=dict)
    proposal: Proposal | None = None
    set_aside: Mapping[JobUid, JobRecord] = field(default_factory=dict)
    memory_losses: Mapping[str, MemoryLoss] = field(default_factory=dict)
