"""Conditions, sentences and redaction: what people are told."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from controlplane.domain.action import (
    ChangePlan,
    EndAttempt,
    FailJob,
    ForgetJob,
    StartAttempt,
    StopAttempt,
)
from controlplane.domain.clock import SECOND, Duration, Instant
from controlplane.domain.event import (
    AcceleratorHealthChanged,
    CheckpointMissed,
    CycleDecided,
    Event,
    JobOverdue,
    JobProgressed,
    JobsForecast,
    JobSubmitted,
    JobUpdated,
    JobWithdrawn,
    MeasurementsImported,
    ModelFitted,
    NodeDrained,
    NodeLost,
    NodeRegistered,
    NodeRemoved,
    NodesClosed,
    OperatorTermRaised,
    PlanChanged,
    PlanObserved,
    PlanRefused,
    PolicyChanged,
    ProposalFound,
    QueueChanged,
    QueueRemoved,
    RendezvousBound,
    UnitExited,
    UnitStarted,
)
from controlplane.domain.forecast import Forecasts
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
from controlplane.domain.lifecycle import Stage
from controlplane.domain.node import Accelerator, Closed, ClosedNode, Node
from controlplane.domain.placement import LaunchUnit, Placement
from controlplane.domain.policy import PolicySettings
from controlplane.domain.proposal import Proposal, ProposedTarget
from controlplane.domain.queue import Queue
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import (
    AttemptRecord,
    Intent,
    JobRecord,
    Outcome,
    Progress,
    UnitExit,
)
from controlplane.domain.step_time_fit import StepTimeFit
from controlplane.domain.suspicion import Suspicion
from controlplane.edges.store.rows import StoredDecision
from controlplane.wire import redact
from controlplane.wire.sentences import logged_decision, logged_event
from controlplane.wire.status import conditions, held_seconds, job_to_wire
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import Asked, PlanRow, Status
from tests.builders import World, a_cluster, a_job

NODE = NodeId("node-a")
PLACEMENT = Placement(
    ExecutionPlan(2),
    (
        LaunchUnit(0, NODE, (AcceleratorId("s0"),), 0),
        LaunchUnit(1, NODE, (AcceleratorId("s1"),), 1),
    ),
)
JOB = Job(
    JobUid("u"),
    "team",
    "train",
    4,
    JobSpec(QueueName("default"), AcceleratorRequest(1, 2), steps=9),
)
RUNNING = JobRecord(
    JOB,
    Stage.RUNNING,
    attempt=AttemptRecord(
        Attempt(1),
        4,
        PLACEMENT,
        Instant(10 * SECOND),
        units_up=frozenset({0, 1}),
        running_at=Instant(12 * SECOND),
    ),
)


def true_conditions(record: JobRecord) -> set[str]:
    return {c.type for c in conditions(record) if c.status == "True"}


def stopping(code: ReasonCode) -> JobRecord:
    assert RUNNING.attempt is not None
    reason = Reason(code, "why")
    attempt = replace(RUNNING.attempt, intent=Intent.STOP, intent_reason=reason)
    return replace(RUNNING, stage=Stage.STOPPING, attempt=attempt, reason=reason)


@pytest.mark.parametrize(
    ("record", "holds"),
    [
        (JobRecord(JOB), set()),
        (JobRecord(JOB, Stage.SUSPENDED), {"Suspended"}),
        (RUNNING, {"Admitted", "Scheduled", "Running"}),
        (
            stopping(ReasonCode.SHRUNK_FOR_OTHERS),
            {"Admitted", "Scheduled", "Running", "Reconfiguring"},
        ),
        (stopping(ReasonCode.PREEMPTED), {"Admitted", "Scheduled", "Running"}),
        (JobRecord(JOB, Stage.BACKING_OFF), set()),
        (JobRecord(JOB, Stage.SUCCEEDED, finished_at=Instant(9)), {"Succeeded"}),
        (JobRecord(JOB, Stage.FAILED, finished_at=Instant(9)), {"Failed"}),
    ],
)
def test_conditions_say_what_is_true_now(record: JobRecord, holds: set[str]) -> None:
    assert true_conditions(record) == holds
    for condition in conditions(record):
        assert condition.reason in {code.value for code in ReasonCode}
        if condition.type in ("Failed", "Suspended") and condition.status == "False":
            assert condition.reason == f"Not{condition.type}", "no reason of another condition"
        assert condition.observed_generation == 4


def test_a_job_on_an_unheard_node_runs_or_not() -> None:
    told = {c.type: c for c in conditions(RUNNING, [NODE])}
    assert told["Running"].status == "Unknown"
    assert told["Running"].reason == ReasonCode.RECOVERING.value
    assert "node-a" in told["Running"].message


class Conditions:
    """Looks at a job's conditions again and again, and knows when each of them changed."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.changed_at: dict[str, tuple[str, int]] = {}

    def look(self) -> set[str]:
        """Those that changed since the last look; each must say when it did."""
        now = self.world.now // SECOND
        changed = set()
        for told in conditions(self.world.job(self.name)):
            status, since = self.changed_at.get(told.type, ("", now))
            if told.status != status:
                changed.add(told.type)
                since = now
            assert told.last_transition_time.seconds == since, told.type
            self.changed_at[told.type] = (told.status, since)
        return changed


def test_each_condition_says_when_it_changed() -> None:
    """A job is submitted, starts, fails, backs off, starts again, is reconfigured, suspended,
    resumed, and succeeds.
    """
    world = a_cluster().with_nodes(2, 2).submit(a_job("j").wanting(1, 4))
    told = Conditions(world, "j")
    assert len(told.look()) == 8
    up = {"Scheduled", "Running"}
    steps: list[tuple[Callable[[], object], set[str]]] = [
        (world.cycle, {"Admitted"}),
        (lambda: world.all_up("j"), up),
        (lambda: world.trains("j"), set()),
        (lambda: world.exits("j", Outcome.FAILED, units=[0]), up),
        (lambda: world.exits("j", Outcome.LOST), {"Admitted"}),
        (world.cycle, set()),
        (world.cycle, {"Admitted"}),
        (lambda: world.runs("j"), up),
        (lambda: world.submit(a_job("other").wanting(2)).cycle(), {"Reconfiguring"}),
        (lambda: world.exits("j", Outcome.STOPPED), {"Admitted", "Reconfiguring"} | up),
        (lambda: world.settle(), {"Admitted"} | up),
        (lambda: world.update(a_job("j").wanting(1, 4).suspended()).cycle(), set()),
        (lambda: world.exits("j", Outcome.STOPPED), {"Admitted", "Suspended"} | up),
        (world.cycle, set()),
        (lambda: world.update(a_job("j").wanting(1, 4)), {"Suspended"}),
        (lambda: world.settle(), {"Admitted"} | up),
        (lambda: world.exits("j"), {"Admitted", "Succeeded"} | up),
    ]
    for number, (happens, changes) in enumerate(steps):
        world.passes(3)
        happens()
        assert told.look() == changes, number


def test_accelerator_seconds_count_each_unit_until_its_release() -> None:
    assert RUNNING.attempt is not None
    exits = (UnitExit(0, Outcome.SUCCEEDED, at=Instant(15 * SECOND)),)
    attempt = replace(RUNNING.attempt, exits=exits)
    record = replace(
        RUNNING,
        attempt=attempt,
        held_ns=Duration(3 * SECOND),
        held_accelerator_ns=Duration(6 * SECOND),
    )
    assert held_seconds(record, Instant(20 * SECOND)) == 6 + 5 + 10


def test_a_job_carries_its_manifest_and_plan() -> None:
    hung = (ReasonCode.RANK_HUNG, Attempt(1))
    suspicions = [Suspicion(NODE, *hung, Instant(at * SECOND)) for at in (20, 21)]
    known = replace(
        RUNNING,
        out_of_memory=(("H100", ExecutionPlan(1)),),
        suspicions=tuple(suspicions),
    )
    wire = job_to_wire(known, Instant(20 * SECOND))
    assert [(each.plan, each.type) for each in wire.status.out_of_memory] == [("dp1", "H100")]
    (still,) = wire.status.suspected_nodes
    assert (still.node, still.reason, still.until.seconds) == ("node-a", "RankHung", 21)
    assert (wire.status.plan, wire.status.stage) == ("dp2", "Running")
    assert [unit.node for unit in wire.status.units] == ["node-a", "node-a"]
    assert wire.status.progress.steps_total == 9
    assert not wire.status.HasField("end")


ROW = PlanRow(Asked("", 2, 8, 64, "fp32"), "dp2", Status.MEASURED, steps=8, iteration=0.0125)
START = StartAttempt(JobUid("u"), Attempt(1), PLACEMENT, Reason(ReasonCode.STARTED, "free"))
PLANS = (ExecutionPlan.parse("pp2.1f1b-ga4"), ExecutionPlan())
EVENTS: list[tuple[Event, str]] = [
    (JobSubmitted(JOB), "generation 4 in queue default, wants 1 to 2 accelerators"),
    (
        JobSubmitted(replace(JOB, spec=replace(JOB.spec, plans=PLANS))),
        "wants 1 to 2 accelerators under pp2.1f1b-ga4 or dp1",
    ),
    (
        JobSubmitted(replace(JOB, spec=replace(JOB.spec, plans=PLANS * 3))),
        "wants 1 to 2 accelerators under one of 6 plans",
    ),
    (JobUpdated(JOB), "updated"),
    (JobWithdrawn(JobUid("u"), purge=True), "together with its checkpoints"),
    (NodeRegistered(Node(NODE, (Accelerator(AcceleratorId("s"), "cpu"),))), "1 accelerator (cpu)"),
    (NodeLost(NODE), "node-a was silent"),
    (NodeDrained(NODE, drained=True), "is drained"),
    (NodeDrained(NODE, drained=False), "takes work again"),
    (NodeRemoved(NODE), "was removed"),
    (
        NodesClosed("op", (ClosedNode(NODE, Closed.TO_NEW_WORK),)),
        "Kubernetes keeps work off node-a (Cordoned)",
    ),
    (NodesClosed("op"), "Kubernetes keeps work off no node"),
    (AcceleratorHealthChanged(NODE, AcceleratorId("s"), "Xid 79"), "unhealthy: Xid 79"),
    (AcceleratorHealthChanged(NODE, AcceleratorId("s"), ""), "healthy again"),
    (RendezvousBound(JobUid("u"), Attempt(1), "h:1"), "meets at h:1"),
    (UnitStarted(JobUid("u"), Attempt(1), 0), "unit 0 of attempt 1 is up"),
    (JobProgressed(JobUid("u"), Attempt(1), Progress(5, loss=1.25)), "step 5, loss 1.25"),
    (
        PlanChanged(JobUid("u"), Attempt(1), "dp2", "pp2.gpipe-ga2", 7, 0.456, (), NODE),
        "attempt 1 went from dp2 to pp2.gpipe-ga2 after step 7, and stood still for 0.46 s",
    ),
    (
        PlanRefused(JobUid("u"), Attempt(1), "tp2", "7 heads", NODE),
        "attempt 1 does not go over to tp2: 7 heads",
    ),
    (
        PlanObserved(JobUid("u"), Attempt(1), 40, ROW, NODE),
        "attempt 1 under dp2 takes 12.5 ms a step (median of 8)",
    ),
    (
        CheckpointMissed(
            JobUid("u"), Attempt(1), 40, Reason(ReasonCode.CHECKPOINT_STORE_FULL, "no room"), NODE
        ),
        "attempt 1 trains on without a checkpoint of step 40: no room",
    ),
    (
        UnitExited(
            JobUid("u"),
            Attempt(1),
            UnitExit(1, Outcome.FAILED, reason=Reason(ReasonCode.RANK_FAILED, "boom")),
            NODE,
        ),
        "failed on node-a: boom",
    ),
    (QueueChanged(Queue(QueueName("q"), 3)), "a quota of 3"),
    (
        QueueChanged(Queue(QueueName("q"), 3, borrowing_accelerators=2)),
        "a quota of 3 and borrows up to 2",
    ),
    (QueueChanged(Queue(QueueName("q"), 3, (), None)), "a quota of 3 and borrows without limit"),
    (
        QueueChanged(Queue(QueueName("q"), namespaces=("team-a", "team-b"))),
        "queue q has no quota, for jobs of team-a, team-b only",
    ),
    (QueueRemoved(QueueName("q")), "queue q was removed"),
    (OperatorTermRaised("headrace/operator", 3), "operator headrace/operator leads under term 3"),
    (PolicyChanged(PolicySettings(policy="fifo")), "policy fifo decides, with new settings"),
    (
        PolicyChanged(PolicySettings(), who="ann", rolls_back_to=3),
        "with the settings of version 3, by ann",
    ),
    (
        ModelFitted(
            StepTimeFit(
                "gpt2-tiny fp32 batch 8x64", "cpu", (), (), 0.1, 1.6, 0.9, 7, 1.0, Instant(0)
            )
        ),
        "batch 8x64 on cpu are fitted to 7 measurements",
    ),
    (
        ProposalFound(
            Proposal(
                SequenceNumber(345), Instant(0), 10.2, 10.0, 10.3, 7, (ProposedTarget(JobUid("u")),)
            )
        ),
        "search of event 345 proposes to start or change 1 jobs: the round would be worth 2 % more",
    ),
    (
        JobOverdue(JobUid("u"), Attempt(1), Reason(ReasonCode.OVERDUE_FORECAST, "9 s past")),
        "it trains on past what was predicted",
    ),
    (
        JobsForecast(Forecasts(SequenceNumber(345), Instant(0), 20, 1.25, ())),
        "when 0 jobs start and end is predicted of event 345, played 20 times in 1.2 s",
    ),
    (
        MeasurementsImported(
            (PlanRow(Asked("gpt2-tiny", 1, 8, 64, "fp32"), "dp1", Status.MEASURED),), "ann"
        ),
        "1 measurement of gpt2-tiny was imported by ann",
    ),
    (CycleDecided(Term(1), SequenceNumber(1), (START,)), "start attempt 1 with dp2 on node-a"),
    (
        CycleDecided(
            Term(1),
            SequenceNumber(1),
            (
                StopAttempt(JobUid("u"), Attempt(1), Reason(ReasonCode.PREEMPTED, "dp4 -> dp2")),
                EndAttempt(JobUid("x"), Attempt(2), Reason(ReasonCode.WITHDRAWN)),
                ChangePlan(JobUid("y"), Attempt(3), PLANS[1], Reason(ReasonCode.PLAN_CHANGED)),
                FailJob(JobUid("v"), Reason(ReasonCode.DEADLINE_EXCEEDED)),
                ForgetJob(JobUid("w"), purge=True),
            ),
        ),
        "stop attempt 1 at a checkpoint: dp4 -> dp2; x: end attempt 2 now (Withdrawn); "
        "y: let attempt 3 go on as dp1 where it is (PlanChanged); "
        "v: give the job up (DeadlineExceeded); w: forget the job and remove",
    ),
]


@pytest.mark.parametrize(("event", "told"), EVENTS)
def test_every_event_is_one_sentence(event: Event, told: str) -> None:
    wire = logged_event(SequenceNumber(7), event, lambda uid: f"name-{uid}")
    assert told in wire.message.replace("name-", "")
    assert (wire.sequence, wire.kind) == (7, event.kind)
    assert json.loads(wire.body_json)["kind"] == event.kind


def test_a_job_that_runs_as_planned_is_not_said_to_wait() -> None:
    why = Reason(ReasonCode.RUNNING)
    one = StoredDecision(SequenceNumber(7), JobUid("u"), Instant(9), Term(1), None, why)
    cycle = CycleDecided(Term(1), SequenceNumber(1), (), ((JobUid("u"), why),))
    told = logged_decision(one, lambda _: "train").message
    assert told == "decided: train (RunningAsPlanned)"
    assert told == logged_event(SequenceNumber(7), cycle, lambda _: "train").message


def test_no_kind_of_event_is_forgotten_here() -> None:
    kinds = {kind.__name__ for kind in Event.__origin__.__args__}  # type: ignore[attr-defined]
    assert {event.kind for event, _ in EVENTS} == kinds


def test_values_of_variables_and_credentials_are_taken_out_and_references_stay() -> None:
    manifest = {
        "spec": {
            "env": [
                {"name": "A", "value": "hunter2"},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ],
            "checkpoint": {"store": "s3://key:hunter2@bucket/x"},
        }
    }
    job = replace(JOB, spec=replace(JOB.spec, manifest_json=json.dumps(manifest)))
    told = logged_event(SequenceNumber(1), JobSubmitted(job), str).body_json
    plain = redact.manifest(json.dumps(manifest))
    for text in (told, plain):
        assert "hunter2" not in text
        assert "secretKeyRef" in text
        assert "bucket/x" in text
