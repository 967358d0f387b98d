"""Nothing is lost on the way, and nothing grows without bound."""

import itertools

from agent.control_folder import ChangeLine, MissedLine, StepLine
from agent.desired import UnitEnd, UnitKey
from agent.outbox import MOST_LOSSES, Batch, Outbox
from agent.translate import report
from controlplane.domain.record import Outcome

KEY = UnitKey("job", 1, 0)
END = UnitEnd(Outcome.STOPPED, 3)


def line(step: int, loss: float | None = 0.5) -> StepLine:
    return StepLine(step, loss, 0.1, 0)


def losses(batch: Batch) -> list[int]:
    ((_, progress),) = batch.progress
    return [step for step, _ in progress.losses]


def test_all_stays_until_it_is_acknowledged() -> None:
    box = Outbox()
    assert box.empty
    box.started(KEY)
    box.rendezvous(KEY, "h:1")
    box.progress(KEY, [line(1)], 10)
    box.exited(KEY, END)
    box.health("a", "Xid 79")
    batch = box.batch()
    assert box.batch() == batch
    assert box.urgent
    assert box.exits == {KEY}
    box.acknowledged(batch)
    assert box.empty
    box.acknowledged(batch)
    assert box.batch() == Batch()


def test_what_came_meanwhile_stays() -> None:
    box = Outbox()
    box.progress(KEY, [line(1), line(2)], 20)
    box.health("a", "Xid 79")
    sent = box.batch()
    box.progress(KEY, [line(3)], 30)
    box.health("a", "ECC")
    box.acknowledged(sent)
    assert losses(box.batch()) == [3]
    assert box.batch().health == (("a", "ECC"),)


def test_what_became_of_plans_and_checkpoints_is_urgent_and_comes_in_order() -> None:
    box = Outbox()
    missed = MissedLine(40, "CheckpointStoreFull", "no room")
    box.plans(KEY, [ChangeLine("dp2", "tp2", 7), missed], 10)
    assert box.urgent
    sent = box.batch()
    told = report("node", (1, 1), sent, {})
    assert [(plan.after, plan.step) for plan in told.plans] == [("tp2", 7)]
    (gap,) = told.missed
    assert (gap.uid, gap.attempt, gap.step, gap.reason.code) == (
        KEY.uid,
        KEY.attempt,
        40,
        "CheckpointStoreFull",
    )
    refused = ChangeLine("", "dp9", refused="no")
    box.plans(KEY, [refused], 20)
    box.acknowledged(sent)
    ((_, pending),) = box.batch().plans
    assert (pending.lines, pending.offset) == ((refused,), 20)
    box.acknowledged(box.batch())
    assert box.empty


def test_progress_alone_is_not_urgent() -> None:
    box = Outbox()
    box.progress(KEY, [line(1)], 10)
    assert not box.urgent
    assert not box.empty


def test_a_line_about_a_checkpoint_keeps_loss_and_pace() -> None:
    box = Outbox()
    box.progress(KEY, [line(9), StepLine(9, None, 0.0, 9)], 10)
    ((_, progress),) = box.batch().progress
    assert progress.last == StepLine(9, 0.5, 0.1, 9)
    assert progress.losses == ((9, 0.5),)


def test_losses_that_nobody_takes_are_thinned_evenly() -> None:
    box = Outbox()
    for step in range(1, 10 * MOST_LOSSES):
        box.progress(KEY, [line(step)], step)
    kept = losses(box.batch())
    assert MOST_LOSSES // 4 < len(kept) <= MOST_LOSSES
    assert len({later - earlier for earlier, later in itertools.pairwise(kept)}) == 1
    ((_, progress),) = box.batch().progress
    assert progress.last.step == 10 * MOST_LOSSES - 1
