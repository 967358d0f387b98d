"""Predicting beside the loop: when, what goes through the door, and what goes wrong harmlessly."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest

from controlplane.domain.clock import Instant
from controlplane.domain.event import (
    Event,
    JobOverdue,
    JobsForecast,
    JobSubmitted,
    NodeDrained,
)
from controlplane.domain.forecast import Forecasts, JobForecast, Span
from controlplane.domain.ids import JobUid, NodeId, SequenceNumber
from controlplane.edges.forecasting import Forecaster, ForecastFailedError
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.feed import StateFeed
from controlplane.edges.playing_process import PlayingProcess
from controlplane.edges.wall_clock import WallClock
from controlplane.engine.state import ClusterState, SequencedEvent
from tests.builders import a_cluster, a_job, a_node
from tests.unit.edges.test_learning import FoldedLog

STATE = a_cluster().with_node(a_node("n", 2)).submit(a_job("a").wanting(1)).state
END = Span(Instant(1), Instant(2), Instant(3))
SAID = JobForecast(JobUid("a"), 1, Instant(1), False, 0.9, END)
TOLD = Forecasts(SequenceNumber(1), Instant(1), 3, 0.1, (SAID,))


class Plays:
    """Answers the same each time, or fails."""

    def __init__(self, *fails: Exception) -> None:
        self.fails = list(fails)
        self.asked = 0
        self.closed = False

    async def play(self, state: ClusterState, at: Instant) -> Forecasts:
        self.asked += 1
        if self.fails:
            raise self.fails.pop()
        return TOLD

    async def close(self) -> None:
        self.closed = True


class Bench:
    """A forecaster, what it counts, and how long it rested."""

    def __init__(self, player: Plays, state: ClusterState = STATE) -> None:
        self.player = player
        self.feed = StateFeed(state, lambda: 0)
        self.log = FoldedLog(self.feed)
        door = Door(WallClock(), self.feed)
        door.open(self.log)
        self.made, self.failed = 0, 0
        self.rested: list[float] = []
        self.enough = asyncio.Event()
        self.forecaster = Forecaster(
            self.feed, door, player, self, every_seconds=10.0, monotonic=lambda: 0, rest=self._rest
        )

    def forecast_made(self, forecasts: Forecasts) -> None:
        self.made += 1

    def forecast_failed(self) -> None:
        self.failed += 1

    async def _rest(self, seconds: float) -> None:
        self.rested.append(seconds)
        if len(self.rested) % 2 == 0:
            self.enough.set()

    async def until_it_rests(self) -> None:
        """Runs it until it has looked once, and ends it."""
        self.enough.clear()
        running = asyncio.create_task(self.forecaster.run())
        await asyncio.wait_for(self.enough.wait(), 10)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_what_is_predicted_is_an_event_and_the_player_is_closed() -> None:
    async def test() -> Bench:
        bench = Bench(Plays())
        await bench.until_it_rests()
        return bench

    bench = asyncio.run(test())
    assert [type(event) for event in bench.log.stored] == [JobsForecast]
    assert bench.feed.state.forecasts[JobUid("a")].newest.end == END
    assert (bench.made, bench.failed) == (1, 0)
    assert sum(bench.rested) == 10.0
    assert bench.player.closed


def test_who_watches_is_told_of_a_job_of_which_only_the_forecast_changed() -> None:
    feed = StateFeed(STATE, lambda: 0)
    watcher = feed.watch()
    feed.publish(STATE.fold([SequencedEvent(SequenceNumber(99), JobsForecast(TOLD))]))
    assert watcher.take()[0] == [JobUid("a")]


def test_a_failure_is_counted_and_what_was_predicted_stays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def test() -> Bench:
        bench = Bench(Plays(ForecastFailedError("the process ended"), ArithmeticError("odd")))
        for _ in range(3):
            await bench.forecaster.predict_once(bench.player)
        return bench

    bench = asyncio.run(test())
    assert (bench.made, bench.failed) == (1, 2)
    assert "the process ended" in capsys.readouterr().out
    assert JobUid("a") in bench.feed.state.forecasts


def test_what_is_overdue_is_told_before_anything_is_played() -> None:
    world = a_cluster().with_node(a_node("n", 2)).submit(a_job("a").wanting(1)).settle()
    world.runs("a")
    at, uid = Instant(world.now), JobUid("a")
    said = JobForecast(uid, 1, at, True, 0.9, Span(at, at, at))
    world.tell(JobsForecast(Forecasts(SequenceNumber(1), at, 3, 0.1, (said,))))

    async def test() -> Bench:
        bench = Bench(Plays(ForecastFailedError("not now")), world.state)
        await bench.forecaster.predict_once(bench.player)
        return bench

    (late,) = asyncio.run(test()).log.stored
    assert isinstance(late, JobOverdue)
    assert late.uid == uid


def test_without_jobs_nothing_is_played() -> None:
    async def test() -> int:
        bench = Bench(Plays(), ClusterState.empty())
        await bench.forecaster.predict_once(bench.player)
        return bench.player.asked

    assert asyncio.run(test()) == 0


@pytest.mark.parametrize(
    ("event", "wakes"),
    [
        (JobSubmitted(a_job("b").job), True),
        (NodeDrained(NodeId("n"), True), False),
        (JobsForecast(TOLD), False),
    ],
)
def test_it_wakes_when_jobs_come_start_or_end(event: Event, wakes: bool) -> None:
    async def test() -> bool:
        bench = Bench(Plays())
        bench.forecaster.look([SequencedEvent(SequenceNumber(1), event)])
        return bench.forecaster.has_news

    assert asyncio.run(test()) is wakes


def play_with(*arguments: str, answer_seconds: float = 30.0) -> Forecasts:
    """What a process of this Python answers."""

    async def test() -> Forecasts:
        process = PlayingProcess((sys.executable, *arguments), answer_seconds=answer_seconds)
        try:
            return await process.play(STATE, Instant(5))
        finally:
            await process.close()

    return asyncio.run(test())


@pytest.mark.parametrize(
    ("program", "seconds", "why"),
    [
        ("import sys; sys.exit(3)", 30.0, "exit code 3|Connection|Broken"),
        ("input(); input(); print('{')", 30.0, "JSONDecodeError"),
        ('input(); input(); print(\'{"error": "too large"}\')', 30.0, "too large"),
        ("input(); input(); input()", 0.2, "no answer within 0.2 s"),
    ],
    ids=["ends", "babbles", "refuses", "hangs"],
)
def test_a_process_that_goes_wrong_is_a_sentence(program: str, seconds: float, why: str) -> None:
    with pytest.raises(ForecastFailedError, match=why):
        play_with("-c", program, answer_seconds=seconds)


def test_a_command_that_is_not_there_is_a_sentence() -> None:
    async def test() -> None:
        await PlayingProcess(("/nowhere/python",)).play(STATE, Instant(5))

    with pytest.raises(ForecastFailedError, match="FileNotFoundError"):
        asyncio.run(test())


def test_the_real_process_is_asked_twice_and_started_once() -> None:
    async def test() -> tuple[Sequence[Forecasts], bool]:
        process = PlayingProcess()
        try:
            told = [await process.play(replace(STATE, last_sequence=SequenceNumber(n)), Instant(n))
                    for n in (7, 8)]  # fmt: skip
        finally:
            pid = process.pid
            await process.close()
        return told, pid is not None and process.pid is None

    told, ended = asyncio.run(test())
    assert [each.made_of for each in told] == [7, 8]
    assert ended
