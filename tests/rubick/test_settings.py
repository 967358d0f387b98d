"""The knobs of the policy as people turn them."""

from dataclasses import fields

import pytest

from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import RubickSettings
from tests.builders import World, a_cluster, a_node
from tests.rubick.worlds import Scaling, a_known_job


def turned(built: World, **knobs: float) -> World:
    found = tuple(sorted((f"rubick.{name}", value) for name, value in knobs.items()))
    return built.with_settings(knobs=found)  # type: ignore[arg-type]


def test_every_knob_tells_its_range_and_what_it_means() -> None:
    knobs = RubickSettings(switch_seconds=5.0).knobs
    assert [knob.name for knob in knobs] == [
        f"rubick.{each.name}" for each in fields(RubickSettings)
    ]
    assert all(knob.low <= knob.default <= knob.high for knob in knobs)
    assert all(knob.meaning.endswith(".") for knob in knobs)
    assert {knob.name: knob.default for knob in knobs}["rubick.switch_seconds"] == 5.0
    assert {knob.name for knob in knobs if knob.whole} == {
        "rubick.attempts",
        "rubick.changes_at_most",
        "rubick.displaced_at_most",
        "rubick.search_nodes",
        "rubick.search_beside_nodes",
        "rubick.try_plans_at_most",
    }


def test_what_people_set_replaces_what_it_began_with() -> None:
    base = RubickSettings(switch_seconds=5.0)
    assert base.turned({"other.attempts": 1.0}) is base
    found = base.turned({"rubick.attempts": 7.0, "rubick.least_gain": 99.0, "rubick.gone": 1.0})
    assert found == RubickSettings(switch_seconds=5.0, attempts=7, least_gain=10.0)


def test_a_knob_that_is_turned_holds_from_the_next_decision_on() -> None:
    policy = Rubick(
        lambda _: Scaling(), RubickSettings(switch_seconds=1.0, cool_down_seconds=3000.0)
    )
    built = a_cluster().under(policy).with_node(a_node("n0", 8, "gpu"))
    built.submit(a_known_job("a", steps=100_000)).settle()
    built.passes(60).submit(a_known_job("b", steps=1000))
    assert built.cycle().decided.actions == ()
    turned(built, cool_down_seconds=10.0).settle()
    assert built.held("b") >= 1


def test_one_apart_decides_the_same() -> None:
    policy = Rubick(lambda _: Scaling())
    built = a_cluster().under(policy).with_node(a_node("n0", 8, "gpu"))
    built.submit(*(a_known_job(f"j{i}", steps=1000 * (i + 1)) for i in range(5)))
    snapshot = built.state.snapshot(built.now)
    assert policy.apart() is not policy
    assert policy.apart()(snapshot) == policy(snapshot)


@pytest.mark.parametrize("name", ["cool_down_seconds"])
def test_what_is_checked_is_what_was_set(name: str) -> None:
    policy = Rubick(lambda _: Scaling(), RubickSettings(cool_down_seconds=10.0))
    built = a_cluster().under(policy).with_node(a_node("n0", 8, "gpu"))
    built.submit(a_known_job("a")).settle().passes(60)
    dropped = policy(built.state.snapshot(built.now))
    dropped = type(dropped)({}, {})
    assert list(policy.violations(built.state.snapshot(built.now), dropped)) == []
    turned(built, **{name: 600.0})
    (told,) = policy.violations(built.state.snapshot(built.now), dropped)
    assert "its last change was just now" in told.text
    assert told.jobs == ("a",)
