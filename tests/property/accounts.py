"""Who held how many accelerators for how long, counted in the simplest way: whenever time passes,
what each job holds then, times the time. What is accounted elsewhere must come to the same.
"""

from collections import Counter

from controlplane.domain.clock import SECOND, Duration
from controlplane.domain.ids import JobUid
from controlplane.domain.node import Contact
from controlplane.edges.telemetry import Telemetry
from controlplane.engine.loop import CycleReport
from controlplane.wire.status import held_seconds
from tests.builders import World


class Accounts:
    """The books of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.telemetry = Telemetry("0", lambda: world.now)
        self.held_ns: Counter[JobUid] = Counter()
        self.accelerator_ns: Counter[JobUid] = Counter()
        self.spent_ns: Counter[tuple[str, str]] = Counter()

    def time_passes(self, passed: Duration) -> None:
        """What is held now is held for so long."""
        state = self.world.state
        self.telemetry.cycle_ended(CycleReport(state, (), None))
        strays = {
            (node.id, slot)
            for node in state.nodes.values()
            for unit in node.strays
            for slot in unit.accelerators
        }
        held = Counter(uid for slot, uid in state.holders.items() if slot not in strays)
        for uid, count in held.items():
            record = state.jobs[uid]
            self.held_ns[uid] += passed
            self.accelerator_ns[uid] += count * passed
            self.spent_ns[record.job.spec.queue, record.stage.lower()] += count * passed
        self.spent_ns["", "stray"] += len(strays) * passed
        for node in state.nodes.values():
            if node.contact is not Contact.LOST:
                for accelerator in node.node.accelerators:
                    if (node.id, accelerator.id) not in state.holders:
                        name = "unhealthy" if accelerator.unhealthy else "idle"
                        self.spent_ns["", name] += passed

    def of_jobs_add_up(self) -> None:
        """Time held, and accelerator-seconds, of each job: past attempts and the present one."""
        now = self.world.now
        for uid, record in self.world.state.jobs.items():
            present = now - record.attempt.started_at if record.attempt else 0
            assert record.held_ns + present == self.held_ns[uid], uid
            assert held_seconds(record, now) * SECOND == self.accelerator_ns[uid], uid

    def of_the_cluster_add_up(self) -> None:
        """Accelerator-seconds by state and queue, as the metrics have them: each is spent once."""
        told = {
            (sample.labels["queue"], sample.labels["state"]): round(sample.value * SECOND)
            for family in self.telemetry.registry.collect()
            for sample in family.samples
            if sample.name == "headrace_accelerator_seconds_total"
        }
        assert +Counter(told) == +self.spent_ns
