"""What people are told of a decision."""

from dataclasses import dataclass, replace

from controlplane.domain.job import JobSpec
from controlplane.domain.step_times import Way
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import RubickSettings
from headrace.api.plan import ExecutionPlan
from tests.builders import JobBuilder, World, a_cluster, a_node
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
    built.submit(a_known_job("a", steps=100_000)).settle()
    built.passes(60).trains("a", 50, step_seconds=0.25)
    assert "It makes 4 steps a second, as it told last." in told(built, policy, "a")
    built.submit(a_known_job("b", steps=1000)).settle()
    assert 0 < built.held("a") < 8
    assert "as it told last" not in told(built, policy, "a")


def test_who_waits_is_told_who_comes_first_and_why() -> None:
    built, policy = world(8)
    promised = a_known_job("promised", most=4, asked=4, guaranteed=True)
    urgent = a_known_job("urgent", most=4, steps=100_000)
    urgent = JobBuilder(replace(urgent.job, spec=replace(urgent.job.spec, priority=2)))
    built.submit(promised, urgent).settle()
    assert (built.held("promised"), built.held("urgent")) == (4, 4)
    built.passes(5).submit(a_known_job("late")).settle()
    said = told(built, policy, "late")
    assert "Before it are served, and not put off for it: " in said
    assert "default/promised (guaranteed)" in said
    assert "default/urgent (of priority 2)" in said


def learning(first: Scaling) -> tuple[World, Rubick, list[Scaling]]:
    """A world in which another thing may be known of steps later."""
    known = [first]
    policy = Rubick(lambda _: known[-1], RubickSettings(switch_seconds=1.0, cool_down_seconds=10.0))
    return a_cluster().under(policy).with_node(a_node("n", 8, "gpu")), policy, known


@dataclass(frozen=True)
class Better(Scaling):
    """Another plan on eight accelerators does so much more than what was known."""

    more: float = 1.0

    def ways(self, spec: JobSpec, kind: str) -> tuple[Way, ...]:
        seconds = self.seconds / 8**self.exponent / self.more
        plan = ExecutionPlan.parse("dp8-ga2")
        return (*super().ways(spec, kind), Way(plan, (8,), seconds, seconds))


def on_all(name: str, *, guaranteed: bool = False) -> tuple[World, Rubick, list[Scaling]]:
    """A job on all that there is."""
    built, policy, known = learning(Scaling())
    built.submit(a_known_job(name, asked=8, guaranteed=guaranteed, steps=100_000)).settle()
    assert built.held(name) == 8
    return built, policy, known


def test_who_has_what_would_not_be_chosen_now_is_told_what_would_and_why_it_is_not() -> None:
    built, policy, known = on_all("a")
    known.append(Better(more=1.05))
    said = told(built, policy, "a")
    assert "It keeps dp8 on 8 gpu: 5.28 steps a second." in said
    better = "dp8-ga2 on 8 gpu would give 5.54 steps a second; "
    young = "but it was started or changed just now, and is left in peace for 10 s."
    assert better + young in said
    said = told(built.passes(60), policy, "a")
    assert f"{better}with the switch that would save 5 % of the time that it still needs, " in said


def test_a_promise_that_grew_with_what_is_known_is_told_so() -> None:
    built, policy, known = on_all("g", guaranteed=True)
    assert told(built, policy, "g").count("and it gets 100 % of it.") == 1
    known.append(Better(more=1.25))
    share = "it gets 80 % of it: more is known of its plans now than when it started."
    assert share in told(built, policy, "g")


def test_a_job_that_was_changed_just_now_is_told_that_it_is_left_in_peace() -> None:
    built, policy = world(8, exponent=0.4)
    built.submit(*(a_known_job(name, steps=10_000) for name in "ab")).settle()
    assert 0 < built.held("a") < 8
    said = told(built.exits("b"), policy, "a")
    assert "but it was started or changed just now, and is left in peace for 10 s." in said


def test_who_is_promised_something_is_told_whose_cool_down_it_waits_out() -> None:
    built, policy = world(8)
    built.submit(a_known_job("guest", steps=100_000)).settle()
    built.passes(60).settle()
    assert built.held("guest") == 8
    snapshot_of_peace = built.passes(0).submit(
        a_known_job("promised", asked=4, guaranteed=True, steps=100_000)
    )
    said = told(snapshot_of_peace, policy, "promised")
    assert "left in peace" not in said  # It makes room at once.
    fresh, policy = world(8)
    fresh.submit(a_known_job("guest", steps=100_000)).settle()
    fresh.submit(a_known_job("promised", asked=4, guaranteed=True, steps=100_000)).settle()
    said = told(fresh, policy, "promised")
    assert (
        "It comes before default/guest (8), which was started or changed just now: "
        "what was is left in peace for 10 s, and can make room then." in said
    )
    fresh.submit(a_known_job("best-effort", steps=100_000)).settle()
    assert "left in peace for 10 s, and can make room" not in told(fresh, policy, "best-effort")


def test_one_accelerator_is_told_of_as_one() -> None:
    built, policy = world(1)
    built.submit(a_known_job("one", asked=1, guaranteed=True, steps=10_000)).settle()
    assert "1 accelerator is enough for that" in told(built, policy, "one")
