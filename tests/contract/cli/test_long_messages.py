"""What `headrace describe` does with messages that fill a screen."""

from headrace.api.generated import common_pb2, jobs_pb2
from tests.contract.cli.conftest import Headrace
from tests.contract.cli.fake_control_plane import FakeControlPlane

FRAMES = "\n".join(
    f'  File "/somewhere/headrace/room_{at}.py", line {at}, in f' for at in range(11)
)
TRACE = f"{FRAMES}\nConnectionRefusedError: [Errno 111] Connection refused"
GIVEN_UP = f"attempt 2 failed and no retry is left: {TRACE}"
CONDITIONS = ("Admitted", "Scheduled", "Running", "Failed")


def _failed(plane: FakeControlPlane, message: str) -> None:
    conditions = [
        common_pb2.Condition(
            type=each, status=str(each == "Failed"), reason="RetriesExhausted", message=message
        )
        for each in CONDITIONS
    ]
    plane.put("a", "Failed", conditions=conditions)
    plane.events = [
        jobs_pb2.LoggedEvent(
            sequence=at, kind="UnitExited", uid="uid-a", message=f"unit {at} failed: {TRACE}"
        )
        for at in range(1, 9)
    ]


def test_a_traceback_is_told_once(headrace: Headrace, plane: FakeControlPlane) -> None:
    _failed(plane, GIVEN_UP)
    told = headrace("describe", "job", "a").stdout
    assert told.count("room_7.py") == 1
    assert told.count("as Failed") == len(CONDITIONS) - 1
    assert "\nFailed:\n    attempt 2 failed and no retry is left:" in told
    # Of an event, the line that says what is wrong.
    assert " ".join(told.split()).count("[Errno 111]") == 1 + len(plane.events)
    assert len(told.splitlines()) < 100
    assert max(map(len, told.splitlines())) <= 80


def test_what_the_explanation_says_is_not_said_again(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.because = GIVEN_UP
    _failed(plane, GIVEN_UP)
    told = headrace("describe", "job", "a").stdout
    assert told.count("room_7.py") == 1
    assert told.count("as said above") == len(CONDITIONS)


def test_a_sentence_stays_in_its_row(headrace: Headrace, plane: FakeControlPlane) -> None:
    sentence = "wants 6 accelerators, the usable nodes of the cluster have 4"
    _failed(plane, sentence)
    told = headrace("describe", "job", "a").stdout
    assert told.count("wants 6") == len(CONDITIONS)
