"""Nouns over the wire and back, and what is refused on the way in."""

import math

import pytest

from controlplane.domain.clock import Instant
from controlplane.domain.event import (
    CheckpointMissed,
    JobProgressed,
    PlanChanged,
    PlanObserved,
    PlanRefused,
    RendezvousBound,
    UnitExited,
    UnitStarted,
)
from controlplane.domain.ids import Attempt, JobUid, NodeId, QueueName
from controlplane.domain.launch import Launch
from controlplane.domain.node import Accelerator, Node, Taint
from controlplane.domain.placement import LaunchUnit
from controlplane.domain.queue import Queue
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import Intent, Outcome, RunningUnit
from controlplane.wire import translate
from controlplane.wire.violations import InvalidMessageError
from headrace.api.generated import common_pb2, nodes_pb2
from headrace.api.measured_plan import row_to_wire
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import Asked, Machine, PlanRow, Status

AT = Instant(1_700_000_000_123_456_789)
ROW = PlanRow(
    Asked("", 2, 8, 64, "fp32"),
    "dp2",
    Status.MEASURED,
    steps=8,
    iteration=0.5,
    offload=0.0,
    peak_process=2**40,
    machine=Machine("cpu", 1, "2.11.0", "", "", "", "0.1.0"),
)


def test_instants_keep_their_nanoseconds_and_zero_is_absent() -> None:
    stamp = translate.timestamp(AT)
    assert stamp is not None
    assert translate.instant(stamp) == AT
    assert translate.timestamp(Instant(0)) is None
    assert translate.timestamp(None) is None


@pytest.mark.parametrize("code", list(ReasonCode))
def test_every_reason_goes_there_and_back(code: ReasonCode) -> None:
    reason = Reason(code, "why", 4, 1, (JobUid("a"), JobUid("b")))
    wire = translate.reason_to_wire(reason)
    assert wire is not None
    assert translate.reason_from_wire(wire) == reason


def test_a_reason_of_a_newer_version_is_kept_in_the_message() -> None:
    told = translate.reason_from_wire(common_pb2.Reason(code="Entropy", message="gone"))
    assert told == Reason(ReasonCode.RANK_FAILED, "Entropy: gone")


def test_a_registration_goes_there_and_back() -> None:
    node = Node(
        NodeId("node-a"),
        (Accelerator("GPU-1", "h100", 80, (0, 1), 64, "Xid 79", "0"),),  # type: ignore[arg-type]
        (("a", "1"), ("b", "2")),
        (Taint("spot", "yes"),),
        "10.0.0.1",
        "0.1.0",
    )
    unit = RunningUnit(JobUid("u"), Attempt(3), 1, ("GPU-1",))  # type: ignore[arg-type]
    event = translate.registration(
        nodes_pb2.RegisterNodeRequest(
            node=translate.node_to_wire(node),
            running=[translate.running_unit_to_wire(unit)],
            highest_attempts=[nodes_pb2.SeenAttempt(uid="u", attempt=3)],
        ),
        AT,
    )
    assert event.node == node
    assert event.running == (unit,)
    assert event.highest_attempts == (("u", 3),)
    assert event.at == AT


def test_a_report_becomes_events_in_an_order_that_can_be_folded() -> None:
    request = nodes_pb2.ReportRequest(
        node="node-a",
        exited=[
            nodes_pb2.UnitExited(uid="u", attempt=1, unit=0, outcome="Succeeded", step=9),
            nodes_pb2.UnitExited(uid="u", attempt=1, unit=1, outcome="Sublimated"),
        ],
        progress=[
            nodes_pb2.ProgressReport(
                uid="u",
                attempt=1,
                progress=common_pb2.Progress(step=9, loss=math.nan),
                losses=[nodes_pb2.StepLoss(step=8, loss=1.5)],
            )
        ],
        started=[nodes_pb2.UnitStarted(uid="u", attempt=1, unit=0)],
        rendezvous=[nodes_pb2.RendezvousBound(uid="u", attempt=1, address="h:1")],
        plans=[
            nodes_pb2.PlanReport(
                uid="u",
                attempt=1,
                before="dp2",
                after="tp2",
                step=8,
                stood_still_seconds=0.5,
                phases=[common_pb2.Phase(name="build", seconds=0.25)],
            ),
            nodes_pb2.PlanReport(uid="u", attempt=1, after="tp3", refused="7 heads"),
        ],
        missed=[
            nodes_pb2.CheckpointMissed(
                uid="u",
                attempt=1,
                step=8,
                reason=common_pb2.Reason(code="CheckpointStoreFull", message="no room"),
            )
        ],
        observed=[
            nodes_pb2.PlanObserved(uid="u", attempt=1, step=8, measured=row_to_wire(ROW)),
            nodes_pb2.PlanObserved(uid="u", attempt=1, measured={"status": "guessed"}),
        ],
    )
    bound, started, progressed, switched, refused, missed, observed, ended, unknown = (
        translate.report_events(request, AT)
    )
    assert isinstance(bound, RendezvousBound)
    assert isinstance(started, UnitStarted)
    assert isinstance(progressed, JobProgressed)
    assert progressed.progress.loss is None
    assert progressed.losses == ((8, 1.5),)
    phases = (("build", 0.25),)
    plan = ("dp2", "tp2", 8, 0.5, phases, NodeId("node-a"), AT)
    assert switched == PlanChanged(JobUid("u"), Attempt(1), *plan)
    assert refused == PlanRefused(JobUid("u"), Attempt(1), "tp3", "7 heads", NodeId("node-a"), AT)
    full = Reason(ReasonCode.CHECKPOINT_STORE_FULL, "no room")
    assert missed == CheckpointMissed(JobUid("u"), Attempt(1), 8, full, NodeId("node-a"), AT)
    assert observed == PlanObserved(JobUid("u"), Attempt(1), 8, ROW, NodeId("node-a"), AT)
    assert isinstance(ended, UnitExited)
    assert (ended.exit.outcome, ended.exit.step, ended.node) == (Outcome.SUCCEEDED, 9, "node-a")
    assert isinstance(unknown, UnitExited)
    assert unknown.exit.outcome is Outcome.FAILED
    assert unknown.exit.reason is not None
    assert "Sublimated" in unknown.exit.reason.message


def test_an_empty_report_is_no_event() -> None:
    assert translate.report_events(nodes_pb2.ReportRequest(node="node-a"), AT) == []


def test_every_violation_is_told_at_once() -> None:
    request = nodes_pb2.ReportRequest(
        node="node-a",
        started=[nodes_pb2.UnitStarted(uid="no spaces", attempt=0, unit=-1)],
        observed=[
            nodes_pb2.PlanObserved(
                uid="u", attempt=1, step=-1, measured={"status": "measured", "iteration": -0.5}
            )
        ],
        health=[nodes_pb2.AcceleratorHealth(accelerator="", problem="x")],
    )
    with pytest.raises(InvalidMessageError) as raised:
        translate.report_events(request, AT)
    assert [violation.field for violation in raised.value.violations] == [
        "started[0].uid",
        "started[0].attempt",
        "started[0].unit",
        "observed[0].step",
        "observed[0].measured.iteration",
        "health[0].accelerator",
    ]


def test_a_launch_says_all_that_an_agent_needs() -> None:
    launch = Launch(
        uid=JobUid("u"),
        attempt=Attempt(2),
        intent=Intent.STOP,
        units=(LaunchUnit(1, NodeId("n"), ("s1",), 1, (4, 5), 99),),  # type: ignore[arg-type]
        namespace="team",
        job_name="train",
        generation=3,
        manifest_json="{}",
        plan=ExecutionPlan(2, 4),
        ranks_total=2,
        units_total=2,
        rendezvous="h:1",
    )
    wire = translate.launch_to_wire(launch)
    assert (wire.uid, wire.attempt, wire.intent) == ("u", 2, nodes_pb2.Launch.INTENT_STOP)
    assert (wire.plan, wire.ranks_total, wire.units_total) == ("dp2-ga4", 2, 2)
    assert (wire.namespace, wire.job_name, wire.generation) == ("team", "train", 3)
    unit = wire.units[0]
    assert (unit.index, unit.first_rank, list(unit.accelerators)) == (1, 1, ["s1"])
    assert (list(unit.cpu_cores), unit.host_memory_bytes) == ([4, 5], 99)


def test_a_queue_without_quota_is_not_a_queue_of_none() -> None:
    of_teams = Queue(QueueName("c"), namespaces=("team-a", "team-b"))
    for queue in (Queue(QueueName("a")), Queue(QueueName("b"), 0, ("x",)), of_teams):
        assert translate.queue_from_wire(translate.queue_to_wire(queue)) == queue
