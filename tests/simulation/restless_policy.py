"""A policy that changes its mind: every job gets another way to run every few minutes."""

from controlplane.domain.chance import draw
from controlplane.domain.clock import seconds
from controlplane.domain.ids import JobUid
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision, Policy
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_times import StepTimes
from controlplane.placing.capacity import Capacity
from controlplane.placing.order import candidates, nodes_to_leave
from controlplane.placing.shares import placed

_TURN = seconds(300)


def restless(times: StepTimes) -> Policy:
    """In each turn of five minutes jobs stay or, by chance, get another known way where there is
    room; what waits takes the first way that fits.
    """

    def decide(snapshot: ClusterSnapshot) -> Decision:
        left = Capacity(snapshot, without=snapshot.holders)
        away = nodes_to_leave(snapshot)
        turn = snapshot.at // _TURN
        targets: dict[JobUid, Placement] = {}
        for record in candidates(snapshot):
            spec, attempt = record.job.spec, record.attempt
            if attempt is not None and not attempt.placement.nodes & away:
                targets[record.uid] = attempt.placement
                settled = attempt.trained and attempt.last_step_at // _TURN < turn
                if not settled or draw(1, "moves", record.uid, turn) > 0.3:
                    continue
            ways = sorted(
                times.ways(spec, spec.accelerators.type),
                key=lambda way: draw(1, record.uid, turn, way.plan, way.shares),
            )
            for way in ways:
                target = placed(spec, way.plan, way.shares, left)
                if target is not None:
                    targets[record.uid] = target
                    break
        reasons = {record.uid: Reason(ReasonCode.RUNNING) for record in candidates(snapshot)}
        return Decision(targets, reasons)

    return decide
