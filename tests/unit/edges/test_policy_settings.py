"""Names, types and ranges of settings, those of policies among them."""

import dataclasses

import pytest

from controlplane.domain.knob import Knob
from controlplane.domain.policy import Decision, PolicySettings
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.edges.grpc_server.policy_settings import OWN, SettingsBook
from controlplane.wire.violations import InvalidMessageError


class Tunable:
    """A policy with two knobs."""

    knobs = (
        Knob("tunable.patience_seconds", 900.0, 1.0, 1e6, "How long to wait."),
        Knob("tunable.attempts", 400, 0, 1000, "How often to try.", whole=True),
    )

    def __call__(self, snapshot: ClusterSnapshot) -> Decision:
        return Decision({}, {})


BOOK = SettingsBook({"tunable": Tunable(), "equal-share": lambda _: Decision({}, {})})


def problem(**wanted: str) -> str:
    name, value = next(iter(wanted.items()))
    with pytest.raises(InvalidMessageError) as caught:
        BOOK.changed(PolicySettings(), {name.replace("__", "."): value, "period_seconds": "2"})
    (violation,) = caught.value.violations
    return violation.problem


def test_every_number_of_the_settings_can_be_set() -> None:
    names = {field.name for field in dataclasses.fields(PolicySettings)}
    assert {knob.name for knob in OWN} == names - {"policy", "knobs", "owner"}
    assert all(knob.meaning.endswith(".") for knob in OWN)


def test_a_knob_is_set_and_taken_back_to_its_default() -> None:
    changed = BOOK.changed(PolicySettings(), {"tunable.attempts": "7"})
    assert changed.knobs == (("tunable.attempts", 7),)
    assert BOOK.to_wire(changed)["tunable.attempts"] == "7"
    assert BOOK.to_wire(changed)["tunable.patience_seconds"] == "900.0"
    assert BOOK.changed(changed, {"tunable.attempts": "default"}) == PolicySettings()
    own = BOOK.changed(PolicySettings(), {"period_seconds": "2"})
    assert BOOK.changed(own, {"period_seconds": "default"}) == PolicySettings()


def test_a_knob_out_of_range_is_refused_with_the_range() -> None:
    assert problem(tunable__patience_seconds="0") == "wanted 1 to 1e+06, got 0"
    assert problem(tunable__attempts="1.5") == "wanted a whole number of 0 to 1000, got 1.5"
    assert problem(tunable__attempts="many") == 'wanted a number of 0 to 1000, got "many"'
    assert problem(tunable__attempts="true") == "wanted a number of 0 to 1000, got true"


def test_the_nearest_right_name_is_told_with_whose_knob_it_is() -> None:
    assert "did you mean tunable.attempts?" in problem(tunable__atempts="3")
    assert "did you mean tunable.patience_seconds?" in problem(patience_second="3")
    assert "there are policy, period_seconds" in problem(nonsense="3")


def test_settings_of_another_time_are_taken_up_as_far_as_they_exist() -> None:
    now = BOOK.changed(PolicySettings(), {"tunable.attempts": "7", "period_seconds": "2"})
    then = PolicySettings("tunable", knobs=(("gone.knob", 3.0), ("tunable.patience_seconds", 60.0)))
    expected = dataclasses.replace(then, knobs=(("tunable.patience_seconds", 60.0),))
    assert BOOK.as_were(now, then) == expected
    with pytest.raises(InvalidMessageError, match="wanted a policy of equal-share, tunable"):
        BOOK.as_were(now, PolicySettings(policy="gone"))


def test_a_value_that_is_not_allowed_any_more_counts_as_the_nearest() -> None:
    knob = Tunable.knobs[1]
    assert knob.value_in({knob.name: 5000.0}) == 1000
    assert knob.value_in({knob.name: -1.0}) == 0
    assert isinstance(knob.value_in({knob.name: 3.0}), int)
