"""What people are told of a decision."""

from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import RubickSettings
from tests.builders import World, a_cluster, a_node
from tests.rubick.worlds import Scaling, a_known_job


def world(*nodes: int, exponent: float = 0.8) -> tuple[World, Rubick]:
    times = Scaling(exponent=exponent)
    policy = Rubick(lambda _: times, RubickSettings(switch_seconds=1.0, cool_down_seconds=10.0))
    built = a_cluster().under(policy)
    for i, count in enumerate(nodes):
        built.with_node(a_node(f"n{i}", count, "gpu"))
    return built, policy


def told(built: World, policy: Rubick, name: str) -> str:
    snapshot = built.state.snapshot(built.now)
    return " ".join(policy.explanation(snapshot, built.job(name).uid))


def test_who_runs_is_told_why_so_and_why_not_more() -> None:
    built, policy = world(8, exponent=0.2)
    built.submit(*(a_known_job(name, steps=10_000) for name in "abcd")).settle()
    for _ in range(3):
        built.passes(60).settle()
    held = built.held("a")
    said = told(built, policy, "a")
    assert 0 < held < 8
    assert f"It gets dp{held} on {held} gpu" in said
    assert "8 accelerators would give 1.52 steps a second" in said
    assert "of the most that it could be worth" in said


def test_who_waits_is_told_what_it_could_run_on_and_what_that_is_worth_to_others() -> None:
    built, policy = world(8)
    built.submit(a_known_job("short", steps=100)).settle()
    built.submit(a_known_job("long", steps=100_000)).settle()
    said = told(built, policy, "long")
    assert "It could run on 1 (1 steps a second) to 8 accelerators (5.28 steps a second)." in said


def test_who_is_promised_something_is_told_what_and_how_it_is_kept() -> None:
    built, policy = world(8)
    built.submit(a_known_job("g", asked=4, guaranteed=True)).settle()
    said = told(built, policy, "g")
    assert "It is promised 3.03 steps a second, the speed of what it asks for;" in said
    assert "4 accelerators are enough for that, and it gets" in said


def test_a_job_of_which_there_is_nothing_to_decide_has_no_explanation() -> None:
    built, policy = world(8)
    built.submit(a_known_job("a").suspended()).settle()
    assert told(built, policy, "a") == ""


def test_who_runs_is_told_how_fast_it_is_but_not_how_fast_it_was_under_another_plan() -> None:
    built, policy = world(8, exponent=0.4)
    built.submit(a_known_job("a", steps=10_000)).settle()
    built.passes(60).trains("a", 50, step_seconds=0.25)
    assert "It makes 4 steps a second, as it told last." in told(built, policy, "a")
    built.submit(a_known_job("b", steps=10_000)).settle()
    assert 0 < built.held("a") < 8
    assert "as it told last" not in told(built, policy, "a")


def test_one_accelerator_more_is_told_of_in_the_singular() -> None:
    built, policy = world(2)
    built.submit(*(a_known_job(name, most=2, steps=10_000) for name in "ab")).settle()
    assert built.held("a") == built.held("b") == 1
    assert "but the 1 more is worth" in told(built, policy, "a")
