"""Decisions in rounds: what happens between two of them is told at the second."""

from controlplane.baselines import BASELINES
from controlplane.domain.clock import SECOND
from simulator.results.allocation_log import Happened
from simulator.run import Result, simulate_to_the_end
from simulator.scenario import JobGroup, NodeGroup, ScenarioFile, build


def played(round_seconds: float) -> Result:
    """Jobs of 100 s on too few accelerators, a new one every 7 s on average."""
    described = ScenarioFile(
        nodes=[NodeGroup(count=1, accelerators=2)],
        jobs=[JobGroup(name="short", count=12, everySeconds=7, maximum=1, steps=100)],
    )
    return simulate_to_the_end(
        build(described, 1), BASELINES["fifo"], name="fifo", round_seconds=round_seconds
    )


def starts(result: Result) -> list[int]:
    return [row.at for row in result.rows if row.event is Happened.STARTED]


def test_jobs_start_at_rounds_only() -> None:
    result = played(60.0)
    assert len(starts(result)) == 12
    assert all(at % (60 * SECOND) == 0 for at in starts(result))
    assert any(at % (60 * SECOND) for at in starts(played(0.0)))


def test_what_happens_happens_at_its_own_time() -> None:
    def submitted(result: Result) -> list[int]:
        return [row.at for row in result.rows if row.event is Happened.SUBMITTED]

    assert submitted(played(60.0)) == submitted(played(0.0))
    assert any(at % (60 * SECOND) for at in submitted(played(60.0)))


def test_fewer_decisions_end_the_same_jobs_a_little_later() -> None:
    at_once, in_rounds = played(0.0), played(60.0)
    assert in_rounds.cycles < at_once.cycles
    early, late = at_once.completion_seconds(), in_rounds.completion_seconds()
    assert len(early) == len(late) == 12
    assert sum(early) < sum(late)
