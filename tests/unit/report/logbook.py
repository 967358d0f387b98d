"""Writes event logs as a control plane would, with the domain's own types and codec."""

import json
import math
import random
from dataclasses import dataclass, field, replace

from controlplane.domain.action import (
    Action,
    ChangePlan,
    EndAttempt,
    FailJob,
    StartAttempt,
    StopAttempt,
)
from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.codec import dump_event
from controlplane.domain.event import (
    CycleDecided,
    Event,
    JobProgressed,
    JobSubmitted,
    NodeLost,
    NodeRegistered,
    PlanChanged,
    UnitExited,
)
from controlplane.domain.ids import (
    AcceleratorId,
    Attempt,
    JobUid,
    NodeId,
    QueueName,
    SequenceNumber,
    Term,
)
from controlplane.domain.job import AcceleratorRequest, Job, JobSpec
from controlplane.domain.node import Accelerator, Node
from controlplane.domain.placement import LaunchUnit, Placement
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import Outcome, Progress, UnitExit
from headrace.api.plan import ExecutionPlan
from headrace.cli.report_facts import (
    AcceleratorFact,
    ClusterFact,
    EventFact,
    JobFact,
    LossFact,
    NodeFact,
    ReportFacts,
)

START = 1_795_000_000 * SECOND
FOUR = (("node-a", "slot-0"), ("node-a", "slot-1"), ("node-b", "slot-0"), ("node-b", "slot-1"))


def at(seconds: float) -> Instant:
    """An instant that many seconds after the log began."""
    return Instant(START + round(seconds * SECOND))


@dataclass
class Logbook:
    """A log that grows by calls in the order of time; times are seconds from its start."""

    events: list[EventFact] = field(default_factory=list)
    jobs: dict[str, JobFact] = field(default_factory=dict)
    losses: dict[str, list[LossFact]] = field(default_factory=dict)
    nodes: tuple[str, ...] = ("node-a", "node-b")
    holds: dict[tuple[str, int], list[tuple[str, str]]] = field(default_factory=dict)
    """Slots of an attempt's units by index, of those that have left too."""

    def write(self, event: Event) -> None:
        body = json.loads(dump_event(event))
        self.events.append(EventFact(len(self.events) + 1, body))

    def register(self, when: float = 0, only: str = "") -> None:
        for name in self.nodes:
            if only in ("", name):
                slots = tuple(Accelerator(AcceleratorId(f"slot-{n}"), "cpu") for n in range(2))
                self.write(NodeRegistered(Node(NodeId(name), slots), at=at(when)))

    def submit(self, when: float, uid: str, name: str = "", namespace: str = "default") -> None:
        spec = JobSpec(QueueName("default"), AcceleratorRequest(1, 4), steps=300)
        job = Job(JobUid(uid), namespace, name or uid, 1, spec, submitted_at=at(when))
        self.write(JobSubmitted(job, at=at(when)))
        self.jobs[uid] = JobFact(uid, namespace, name or uid, "Running", steps_total=300)

    def decide(
        self,
        when: float,
        *actions: Action,
        reasons: tuple[tuple[str, Reason], ...] = (),
        folded_up_to: int = 0,
    ) -> None:
        seen = SequenceNumber(folded_up_to or len(self.events))
        told = tuple((JobUid(uid), reason) for uid, reason in reasons)
        self.write(CycleDecided(Term(1), seen, actions, told, at=at(when)))

    def starting(
        self, uid: str, attempt: int, slots: tuple[tuple[str, str], ...], plan: str = ""
    ) -> StartAttempt:
        """The action that starts an attempt with one rank on each of the slots, data parallel if
        no plan is given.
        """
        self.holds[uid, attempt] = list(slots)
        units = tuple(
            LaunchUnit(number, NodeId(node), (AcceleratorId(slot),), number)
            for number, (node, slot) in enumerate(slots)
        )
        reason = Reason(ReasonCode.STARTED, f"{len(slots)} accelerators are free")
        laid_out = ExecutionPlan.parse(plan) if plan else ExecutionPlan(len(slots))
        placement = Placement(laid_out, units)
        return StartAttempt(JobUid(uid), Attempt(attempt), placement, reason)

    def changing(
        self,
        uid: str,
        attempt: int,
        plan: str,
        message: str = "",
        keeping: tuple[int, ...] = (),
        joining: tuple[tuple[str, str], ...] = (),
    ) -> ChangePlan:
        """The action that asks an attempt's ranks to go over to another plan.

        Args:
            uid: The job.
            attempt: Its attempt.
            plan: The plan.
            message: Why.
            keeping: Units that stay; none if nobody leaves or joins.
            joining: Slots of new units.
        """
        slots = self.holds[uid, attempt]
        new = range(len(slots), len(slots) + len(joining))
        slots += joining
        units = tuple(
            LaunchUnit(
                unit,
                NodeId(slots[unit][0]),
                (AcceleratorId(slots[unit][1]),),
                rank,
                joins=unit in new,
            )
            for rank, unit in enumerate((*keeping, *new))
        )
        reason = Reason(ReasonCode.PLAN_CHANGED, message)
        return ChangePlan(JobUid(uid), Attempt(attempt), ExecutionPlan.parse(plan), reason, units)

    def change(
        self, when: float, uid: str, attempt: int, plans: tuple[str, str], step: int, still: float
    ) -> None:
        """The ranks tell that they went over after that step, and how long they stood still."""
        node = NodeId(self.holds[uid, attempt][0][0])
        self.write(
            PlanChanged(JobUid(uid), Attempt(attempt), *plans, step, still, (), node, at=at(when))
        )

    def stopping(self, uid: str, attempt: int, message: str) -> StopAttempt:
        reason = Reason(ReasonCode.SHRUNK_FOR_OTHERS, message)
        return StopAttempt(JobUid(uid), Attempt(attempt), reason)

    def ending(self, uid: str, attempt: int) -> EndAttempt:
        return EndAttempt(JobUid(uid), Attempt(attempt), Reason(ReasonCode.NODE_LOST))

    def failing(self, uid: str) -> FailJob:
        return FailJob(
            JobUid(uid), Reason(ReasonCode.RETRIES_EXHAUSTED, "3 retries were not enough")
        )

    def train(
        self, uid: str, attempt: int, begin: float, end: float, steps: range, seed: int = 1
    ) -> None:
        """Reports the steps about once a second, spread evenly between two times."""
        chance = random.Random(f"{seed} {uid} {attempt}")
        points = self.losses.setdefault(uid, [])
        reported = -1.0
        for number, step in enumerate(steps):
            when = begin + (end - begin) * number / max(1, len(steps) - 1)
            loss = 2.2 + 3.3 * math.exp(-step / 90) + chance.gauss(0, 0.05)
            points.append(LossFact(step, loss, attempt, at(when)))
            if when - reported >= 1 or step == steps[-1]:
                reported = when
                progress = Progress(step, loss=loss, step_seconds=0.1, at=at(when))
                self.write(JobProgressed(JobUid(uid), Attempt(attempt), progress, at=at(when)))

    def exit(
        self,
        when: float,
        uid: str,
        attempt: int,
        outcome: Outcome,
        step: int = 0,
        units: tuple[int, ...] = (),
        message: str = "",
    ) -> None:
        slots = self.holds[uid, attempt]
        reason = Reason(ReasonCode.RANK_FAILED, message) if message else None
        for unit in units or tuple(range(len(slots))):
            end = UnitExit(unit, outcome, step, reason, at(when))
            node = NodeId(slots[unit][0])
            self.write(UnitExited(JobUid(uid), Attempt(attempt), end, node, at=at(when)))

    def lose(self, when: float, node: str) -> None:
        self.write(NodeLost(NodeId(node), at=at(when)))

    def facts(self, now: float) -> ReportFacts:
        return ReportFacts(
            events=tuple(self.events),
            jobs=tuple(self.jobs.values()),
            nodes=tuple(
                NodeFact(name, tuple(AcceleratorFact(f"slot-{n}", "cpu") for n in range(2)))
                for name in self.nodes
            ),
            losses={uid: tuple(points) for uid, points in self.losses.items()},
            cluster=ClusterFact("0.1.0", "equal-share", 1, "deciding", at(now)),
        )


LIVE = (True, True)


def the_demo(half: str = "pp2.1f1b-ga4", live: tuple[bool, bool] = (False, False)) -> Logbook:
    """What the demo is meant to be: gpt on four, on two beside vit, on four again.

    Args:
        half: The plan on two.
        live: Whether gpt shrinks, and grows, in memory; else by a restart.
    """
    book = Logbook()
    book.register()
    book.submit(1, "u-gpt", "gpt")
    book.decide(1.1, book.starting("u-gpt", 1, FOUR))
    book.train("u-gpt", 1, 9.5, 40, range(1, 121))
    book.submit(38, "u-vit", "vit")
    attempt = _shrinks(book, half, live=live[0])
    book.train("u-gpt", attempt, 47.2, 78, range(121, 181), seed=2)
    book.train("u-vit", 1, 48.2, 70, range(1, 301))
    book.exit(71, "u-vit", 1, Outcome.SUCCEEDED, 300)
    if live[1]:
        why = "vit finished: its 2 accelerators are free"
        book.decide(
            71.1, book.changing("u-gpt", attempt, "dp4", why, keeping=(0, 1), joining=FOUR[2:])
        )
        book.change(78.5, "u-gpt", attempt, (half, "dp4"), 180, 0.75)
        units = (0, 1, *range(len(book.holds["u-gpt", attempt]))[-2:])
    else:
        book.decide(
            71.1, book.stopping("u-gpt", attempt, "vit finished: its 2 accelerators are free")
        )
        book.exit(78.4, "u-gpt", attempt, Outcome.STOPPED, 180, (0, 1))
        attempt, units = attempt + 1, (0, 1, 2, 3)
        book.decide(78.5, book.starting("u-gpt", attempt, FOUR))
    book.train("u-gpt", attempt, 87, 120, range(181, 301), seed=3)
    book.exit(121, "u-gpt", attempt, Outcome.SUCCEEDED, 300, units)
    for uid, end in (("u-gpt", at(121)), ("u-vit", at(71))):
        job = JobFact(uid, "default", book.jobs[uid].name, "Succeeded", "", 300, 300)
        book.jobs[uid] = replace(job, finished_ns=end)
    return book


def _shrinks(book: Logbook, half: str, *, live: bool) -> int:
    """Gpt makes room for vit; the attempt in which it goes on."""
    waits = Reason(
        ReasonCode.WAITING_FOR_RELEASE, "2 accelerators that gpt holds are being released", 2, 0
    )
    why = "vit arrived: each of 2 jobs gets 2 of 4 accelerators"
    if live:
        order: Action = book.changing("u-gpt", 1, half, why, keeping=(0, 1))
        book.decide(38.1, order, reasons=(("u-vit", waits),))
        book.exit(40.2, "u-gpt", 1, Outcome.STOPPED, 120, (2, 3))
        book.decide(40.3, book.starting("u-vit", 1, FOUR[2:]))
        book.change(41, "u-gpt", 1, ("dp4", half), 120, 1.25)
        return 1
    book.decide(38.1, book.stopping("u-gpt", 1, why), reasons=(("u-vit", waits),))
    book.exit(40.2, "u-gpt", 1, Outcome.STOPPED, 120)
    book.decide(
        40.3,
        book.starting("u-gpt", 2, FOUR[:2], half),
        book.starting("u-vit", 1, FOUR[2:]),
    )
    return 2


def the_bad_day() -> Logbook:
    """A failure with a retry, a lost node, a job that goes on."""
    book = Logbook()
    book.register()
    book.submit(0.5, "u-1", "mixtral-finetune", namespace="research")
    book.decide(1, book.starting("u-1", 1, FOUR))
    book.train("u-1", 1, 8, 30, range(1, 131))
    message = "rank 2 exited with 1: RuntimeError: CUDA error: an illegal memory access"
    book.exit(31, "u-1", 1, Outcome.FAILED, 0, (2,), message)
    book.decide(31.1, book.ending("u-1", 1))
    book.exit(31.5, "u-1", 1, Outcome.LOST, 0, (0, 1, 3))
    book.decide(37, book.starting("u-1", 2, FOUR))
    book.train("u-1", 2, 46, 80, range(101, 221))
    book.lose(90, "node-b")
    book.decide(90.1, book.ending("u-1", 2))
    book.exit(90.5, "u-1", 2, Outcome.LOST, 0, (0, 1))
    book.decide(95.5, book.starting("u-1", 3, FOUR[:2], "dp2-ga2"))
    book.train("u-1", 3, 104, 130, range(201, 261))
    book.register(132, only="node-b")
    book.jobs["u-1"] = JobFact(
        "u-1", "research", "mixtral-finetune", "Running", "dp2-ga2", 260, 600
    )
    return book
