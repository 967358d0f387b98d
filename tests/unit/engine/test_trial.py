"""What would be decided under other settings, without deciding it."""

from dataclasses import dataclass, field, replace

from controlplane.domain.event import PolicyChanged
from controlplane.domain.policy import Decision, Policy
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.engine.trial import DifferenceKind, Trial, tried
from tests.builders import World, a_job


def trial(built: World, **changes: object) -> Trial:
    settings = replace(built.state.settings, **changes)  # type: ignore[arg-type]
    return tried(built.state, built.now, built.policies, settings)


def kinds(found: Trial) -> dict[str, DifferenceKind]:
    return {each.record.job.name: each.kind for each in found.differences}


def test_the_same_settings_make_no_difference() -> None:
    built = World().with_nodes(2, 4).submit(a_job("a").wanting(1, 8)).settle()
    built.submit(a_job("b").wanting(1, 8))
    assert trial(built) == Trial()
    assert trial(built, period_seconds=60.0) == Trial()


def test_who_would_start_shrink_and_wait_is_told() -> None:
    built = World("fifo").with_nodes(1, 4).submit(a_job("a").wanting(1, 4)).settle()
    built.submit(a_job("b").wanting(1, 4))
    found = trial(built, policy="equal-share")
    assert kinds(found) == {"a": DifferenceKind.SHRINKS, "b": DifferenceKind.STARTS}
    small, started = found.differences
    assert small.before.target is not None
    assert small.after.target is not None
    counts = (small.before.target.accelerator_count, small.after.target.accelerator_count)
    assert counts == (4, 2)
    assert started.before.target is None
    assert started.before.reason is not None
    built.tell(PolicyChanged(replace(built.state.settings, policy="equal-share")))
    back = trial(built, policy="fifo")
    assert kinds(back) == {"a": DifferenceKind.GROWS, "b": DifferenceKind.WAITS}


def test_what_the_rules_would_order_is_told_too() -> None:
    built = World().with_nodes(1, 1).submit(a_job("a")).settle()
    built.exits("a").passes(60.0)
    assert kinds(trial(built, finished_kept_seconds=10.0)) == {"a": DifferenceKind.DIFFERS}


def test_a_policy_that_cannot_decide_is_told_of() -> None:
    built = World().with_nodes(1, 1)
    found = trial(built, policy="none-such")
    assert "there is no policy 'none-such'" in found.refused


@dataclass
class Remembering:
    """Counts how often it was asked."""

    asked: list[ClusterSnapshot] = field(default_factory=list)

    def __call__(self, snapshot: ClusterSnapshot) -> Decision:
        self.asked.append(snapshot)
        return Decision({}, {})

    def apart(self) -> Policy:
        return Remembering()


def test_a_policy_that_remembers_is_not_the_one_that_is_asked() -> None:
    policy = Remembering()
    built = World().with_nodes(1, 1).under(policy)
    assert trial(built, period_seconds=1.0) == Trial()
    assert policy.asked == []
