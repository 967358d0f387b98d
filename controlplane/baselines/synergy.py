"""Synergy (OSDI 2022) over first come, first served: accelerators and plan as requested, nobody is
preempted, who does not fit is passed over; CPUs and memory by Synergy-Tune.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from controlplane.baselines.layouts import (
    Layout,
    as_requested,
    placed,
    under_the_plan_asked_for,
    unmeasured,
    with_room,
)
from controlplane.baselines.synergy_tune import (
    Floor,
    Parts,
    Resources,
    Server,
    Tenant,
    Tuner,
)
from controlplane.domain.ids import NodeId
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision
from controlplane.domain.record import Intent
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_times import StepTimes
from controlplane.placing.capacity import Capacity
from controlplane.placing.layout import placement_under
from controlplane.placing.shares import nodes_for
from controlplane.placing.standing import Standing, Standings
from headrace.api.memory import GIB
from headrace.api.plan import ExecutionPlan


@dataclass(frozen=True, slots=True)
class Synergy:
    """The policy.

    Attributes:
        step_times: Knows how jobs may lie; speeds are not compared.
        cpus_each: CPUs that a rank asks for.
        offload_cpus_each: The same under ZeRO-Offload, whose optimizer runs on CPUs.
        memory_gb_each: Memory that a rank asks for.
        offload_memory_gb_each: The same under ZeRO-Offload.
        spreads: Whether a job goes to any nodes for which its step times are known, the fastest
            that are free first, instead of waiting for the fastest.
    """

    step_times: StepTimes
    cpus_each: float = 1.0
    offload_cpus_each: float = 4.0
    memory_gb_each: float = 2.0
    offload_memory_gb_each: float = 8.0
    spreads: bool = False

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What had to be assumed, to be printed with every result."""
        return (
            "Synergy: base policy first come, first served; who does not fit is passed over, "
            "nobody is preempted; decides on events, not in rounds",
            f"Synergy: a rank wants {self.cpus_each:g} CPUs and {self.memory_gb_each:g} GB, with "
            f"ZeRO-Offload for {self.offload_cpus_each:g} and {self.offload_memory_gb_each:g} (as "
            "in Rubick's artifact); no table has a number of CPUs, so nobody gains by more, and "
            "ranks are pinned to the cores of their accelerators",
            "Synergy: a job "
            + (
                "takes the fastest measured shares that are free"
                if self.spreads
                else "waits for the fastest measured shares of its plan (one node, or whole nodes)"
            ),
            "Synergy: 3D-parallel jobs are rigid gangs",
        )

    def __call__(self, snapshot: ClusterSnapshot) -> Decision:
        """Where each job should run."""
        return _Round(self, snapshot).decide()


class _Round:
    """One decision in the making."""

    def __init__(self, policy: Synergy, snapshot: ClusterSnapshot) -> None:
        self.policy = policy
        self.snapshot = snapshot
        self.now = Standings(snapshot, under_the_plan_asked_for)
        self.left = Capacity(snapshot, without=snapshot.holders)
        self.floor = Floor(_servers(snapshot))

    def decide(self) -> Decision:
        waiting = []
        for each in self.now.jobs:
            attempt = each.record.attempt
            if attempt is None:
                waiting.append(each)
            elif attempt.intent is Intent.RUN and each.place is not None:
                self.now.keep(each.record, each.place)
        for record in self.snapshot.jobs.values():
            target = self.now.targets.get(record.uid)
            if target is not None:
                self._admit_where_it_is(target, record.uid)
        for each in waiting:
            self._place(each)
        return Decision(self.now.targets, self.now.reasons)

    def _admit_where_it_is(self, place: Placement, name: str) -> None:
        parts: dict[str, int] = {node: len(ids) for node, ids in place.by_node().items()}
        if all(self.floor.free.get(node, 0) >= count for node, count in parts.items()):
            tenant = self._tenant(name, place.plan, place.accelerator_count, parts)
            Tuner().admit(self.floor, tenant)

    def _tenant(
        self, name: str, plan: ExecutionPlan | None, count: int, at: Parts | None = None
    ) -> Tenant:
        offloads = plan is not None and plan.offload
        rules = self.policy
        demand = (
            (rules.offload_cpus_each, rules.offload_memory_gb_each)
            if offloads
            else (rules.cpus_each, rules.memory_gb_each)
        )
        return Tenant(name, count, demand, at=at)

    def _place(self, each: Standing) -> None:
        record, spec = each.record, each.record.job.spec
        layouts = as_requested(self.policy.step_times, spec, self.now.empty)
        if not layouts:
            self.now.reasons[each.uid] = unmeasured(spec)
            return
        wanted, left = layouts[0].accelerators, self.now.quotas.left(spec.queue)
        if left is not None and left < wanted:
            self.now.reasons[each.uid] = self.now.waits.for_quota(record, wanted, left)
            return
        for layout in layouts if self.policy.spreads else layouts[:1]:
            target = self._laid_out(each, layout)
            if target is not None:
                self.now.gets(record, target)
                self.now.quotas.use(spec.queue, wanted)
                return
        self.now.wait(record, wanted, self.left)

    def _laid_out(self, each: Standing, layout: Layout) -> Placement | None:
        """The job laid out where Synergy-Tune finds room for it."""
        spec = each.record.job.spec
        tenant = self._tenant(each.uid, layout.plan, layout.accelerators)
        if not layout.shares:
            target = placed(spec, layout, self.left)
            if target is not None:
                self._admit_where_it_is(target, each.uid)
            return target
        asking = with_room(spec, layout, self.left).accelerators

        def find(floor: Floor, tenant: Tenant, demand: Resources) -> Parts | None:
            """Nodes where it lies as it was measured, each with enough of everything."""
            free = self.left.free_by_node(asking).get(layout.kind, {})
            room = {name: min(count, floor.room(name, demand)) for name, count in free.items()}
            names = nodes_for(layout.shares, room, self.left.racks, asking.topology)
            return None if names is None else dict(zip(names, layout.shares, strict=True))

        grant = Tuner(find).admit(self.floor, tenant)
        if grant is None:
            return None
        counts = {NodeId(name): count for name, count in grant.parts.items()}
        assert layout.plan is not None, "shares are known for a plan"
        held = self.left.take(layout.kind, counts, layout.plan.tensor_parallel)
        return placement_under(spec, layout.plan, held.parts)


def _servers(snapshot: ClusterSnapshot) -> Sequence[Server]:
    """The nodes that take work; where a node tells of no CPUs or memory they never run out."""
    servers = []
    for name, offer in snapshot.usable.items():
        every = [accelerator for each in offer.values() for accelerator in each]
        if every:
            cpus = sum(len(each.cpu_cores) for each in every)
            memory = sum(each.host_memory_bytes for each in every) / GIB
            servers.append(Server(name, len(every), (cpus or inf, memory or inf)))
    return servers
