"""What the end of a process means."""

from typing import Any

import pytest

from agent import outcome
from agent.desired import UnitEnd
from controlplane.domain.reason import ReasonCode
from controlplane.domain.record import Outcome


def concluded(ended: dict[str, Any], said: dict[str, Any] | None = None, **more: Any) -> UnitEnd:
    known = {"unit": 3, "step": 5, "end_requested": False, "killed": False, **more}
    return outcome.conclude(ended, said, last_lines="the last line", **known)


def test_what_a_rank_says_steers_no_terminal() -> None:
    end = concluded({"exit_code": 1}, {"outcome": "Failed", "message": "no\x1b[2J more\x07"})
    assert end.reason is not None
    assert end.reason.message.startswith("no more\nIts last lines:\n")


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("step 3\nCheckpointFailed: the disk is full", "the disk is full\nIts last lines:\nstep 3"),
        ("CheckpointFailed: the disk is full", "the disk is full"),
    ],
)
def test_a_reason_that_the_rank_printed_too_is_told_once(printed: str, told: str) -> None:
    said = {"outcome": "Failed", "reason": "CheckpointFailed", "message": "the disk is full"}
    end = outcome.conclude(
        {"exit_code": 1},
        said,
        unit=0,
        step=5,
        end_requested=False,
        killed=False,
        last_lines=printed,
    )
    assert end.reason is not None
    assert end.reason.message == told


@pytest.mark.parametrize("how", ["Succeeded", "Stopped"])
def test_a_rank_that_ends_well_is_believed(how: str) -> None:
    assert concluded({"exit_code": 0}, {"outcome": how, "step": 9}) == UnitEnd(Outcome(how), 9)


@pytest.mark.parametrize(
    ("ended", "said", "code", "part"),
    [
        ({"exit_code": 0}, None, ReasonCode.RANK_FAILED, "exited with code 0 without saying"),
        ({"exit_code": 1}, {"outcome": "Succeeded"}, ReasonCode.RANK_FAILED, "code 1"),
        ({"exit_code": 1}, None, ReasonCode.RANK_FAILED, "unit 3 exited with code 1"),
        ({"exit_code": -11}, None, ReasonCode.RANK_FAILED, "SIGSEGV"),
        ({"exit_code": -9}, None, ReasonCode.RANK_FAILED, "SIGKILL"),
        ({"exit_code": -9, "out_of_memory": True}, None, ReasonCode.OUT_OF_MEMORY, "memory"),
        (
            {"exit_code": 1},
            {"outcome": "Failed", "reason": "FencedByNewerAttempt", "message": "older"},
            ReasonCode.FENCED,
            "older",
        ),
        ({"exit_code": 1}, {"outcome": "Failed", "reason": "Nonsense"}, ReasonCode.RANK_FAILED, ""),
        ({"refused": "secret hub is missing"}, None, ReasonCode.START_REFUSED, "secret hub"),
    ],
)
def test_failures_have_a_reason(
    ended: dict[str, Any], said: dict[str, Any] | None, code: ReasonCode, part: str
) -> None:
    end = concluded(ended, said)
    assert end.outcome is Outcome.FAILED
    assert end.reason is not None
    assert end.reason.code is code
    assert part in end.reason.message
    assert ("the last line" in end.reason.message) is (code is not ReasonCode.START_REFUSED)


def test_a_unit_that_was_told_to_end_has_no_reason_of_its_own() -> None:
    assert concluded({"exit_code": -15}, end_requested=True) == UnitEnd(Outcome.FAILED, 5)
    by_us = concluded({"exit_code": -9}, end_requested=True, killed=True)
    assert by_us == UnitEnd(Outcome.FAILED, 5)


def test_a_unit_that_somebody_else_killed_says_so_even_if_its_end_was_ordered_meanwhile() -> None:
    end = concluded({"exit_code": -9}, end_requested=True)
    assert end.reason is not None
    assert "was killed by SIGKILL" in end.reason.message
    well = concluded({"exit_code": 0}, {"outcome": "Stopped"}, end_requested=True)
    assert well.outcome is Outcome.STOPPED


@pytest.mark.parametrize(
    ("ended", "said", "orders", "by_others"),
    [
        ({"exit_code": -9}, None, {}, True),
        ({"exit_code": -15}, None, {}, True),
        ({"exit_code": -9}, {"outcome": "Succeeded"}, {}, True),
        ({"exit_code": -9}, None, {"end_requested": True}, True),
        ({"exit_code": -15}, None, {"end_requested": True}, False),
        ({"exit_code": -9}, None, {"end_requested": True, "killed": True}, False),
        ({"exit_code": -9}, {"outcome": "Failed", "reason": "RankLost"}, {}, False),
        ({"exit_code": -9, "out_of_memory": True}, None, {}, False),
        ({"exit_code": -11}, None, {}, False),
        ({"exit_code": 1}, None, {}, False),
        ({"refused": "no such secret"}, None, {}, False),
    ],
)
def test_who_was_killed_by_others_is_told_apart(
    ended: dict[str, Any], said: dict[str, Any] | None, orders: dict[str, bool], by_others: bool
) -> None:
    known = {"end_requested": False, "killed": False, **orders}
    assert outcome.killed_by_others(ended, said, **known) is by_others


@pytest.mark.parametrize(
    ("ray_lost", "code"), [(True, ReasonCode.RAY_LOST), (False, ReasonCode.RANK_LOST)]
)
def test_a_vanished_supervisor_is_told_apart_from_a_vanished_ray(
    ray_lost: bool, code: ReasonCode
) -> None:
    end = outcome.vanished(unit=3, step=5, ray_lost=ray_lost, end_requested=False, last="")
    assert (end.outcome, end.step) == (Outcome.LOST, 5)
    assert end.reason is not None
    assert end.reason.code is code


def test_ray_is_named_even_if_a_peers_loss_was_told_first_and_the_end_ordered() -> None:
    end = outcome.vanished(unit=3, step=5, ray_lost=True, end_requested=True, last="")
    assert end.reason is not None
    assert end.reason.code is ReasonCode.RAY_LOST
    ordered = outcome.vanished(unit=3, step=5, ray_lost=False, end_requested=True, last="")
    assert ordered == UnitEnd(Outcome.LOST, 5)


def test_an_end_survives_the_folder() -> None:
    for end in (concluded({"exit_code": 1}), UnitEnd(Outcome.STOPPED, 4)):
        assert outcome.from_json(outcome.to_json(end)) == end
