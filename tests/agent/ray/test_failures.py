"""What may die, dies here: ranks, actors, agents, the control plane, Ray."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.agent.ray.cluster import (
    STOP,
    AgentProcess,
    ListeningControlPlane,
    LocalRay,
    a_launch,
    gone,
    until,
)

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]

A, B = "node-a-slot-0", "node-a-slot-1"


@pytest.fixture
def training(agent: AgentProcess, control_plane: ListeningControlPlane) -> AgentProcess:
    """An agent with one unit that trains on slot A."""
    agent.start()
    control_plane.assign("node-a", 1, a_launch("job", "grandchild", slots=(A,)))
    until("it trains", lambda: control_plane.losses("job"))
    return agent


@pytest.fixture
def idle(
    ray: LocalRay, control_plane: ListeningControlPlane, tmp_path: Path
) -> Iterator[AgentProcess]:
    """The agent of a second node, which a test starts."""
    made = AgentProcess("node-b", tmp_path, ray, control_plane)
    yield made
    made.end_units()


def test_a_killed_rank_is_a_failed_rank(
    training: AgentProcess, control_plane: ListeningControlPlane
) -> None:
    rank = training.rank("job")
    assert rank is not None
    rank.send_signal(signal.SIGKILL)
    ended = until("the end is reported", lambda: control_plane.exits("job"))[0]
    assert (ended.outcome, ended.reason.code) == ("Failed", "RankFailed")
    assert "SIGKILL" in ended.reason.message
    assert ended.step >= 1


def test_a_killed_actor_takes_its_rank_along_and_is_a_lost_rank(
    training: AgentProcess, control_plane: ListeningControlPlane
) -> None:
    rank, actor = training.rank("job"), training.supervisor("job")
    grandchild = psutil.Process(int((training.folder("job") / "grandchild").read_text()))
    assert actor is not None
    actor.send_signal(signal.SIGKILL)
    ended = until("the end is reported", lambda: control_plane.exits("job"))[0]
    assert (ended.outcome, ended.reason.code) == ("Lost", "RankLost")
    assert gone(rank)
    assert gone(grandchild)
    assert training.times_started("job") == 1
    # The next attempt gets the same slot.
    control_plane.assign("node-a", 2, a_launch("job", attempt=2, slots=(A,)))
    until("the next attempt runs", lambda: training.times_started("job", attempt=2))


def test_a_killed_agent_leaves_the_rank_alone_and_its_successor_adopts_it(
    training: AgentProcess, control_plane: ListeningControlPlane
) -> None:
    rank = training.rank("job")
    training.kill()
    before = max(control_plane.losses("job"))
    progress = training.folder("job") / "progress.jsonl"
    until("it trains on", lambda: len(progress.read_text().splitlines()) > before + 10)
    assert not gone(rank)

    training.start()
    again = until("it registers again", lambda: control_plane.registrations[1:])[0]
    assert [(u.uid, u.attempt, u.unit, list(u.accelerators)) for u in again.running] == [
        ("job", 1, 0, [A])
    ]
    assert [(s.uid, s.attempt) for s in again.highest_attempts] == [("job", 1)]
    assert again.highest_term == 1
    until("losses go on", lambda: max(control_plane.losses("job")) > before + 20)
    losses = control_plane.losses("job")
    assert sorted(losses) == list(range(1, max(losses) + 1))

    control_plane.assign("node-a", 2, a_launch("job", slots=(A,), intent=STOP))
    ended = until("the end is reported", lambda: control_plane.exits("job"))[0]
    assert ended.outcome == "Stopped"
    assert training.times_started("job") == 1


def test_a_unit_that_ends_without_an_agent_is_reported_by_the_next(
    training: AgentProcess, control_plane: ListeningControlPlane
) -> None:
    rank = training.rank("job")
    training.kill()
    assert rank is not None
    rank.send_signal(signal.SIGKILL)
    until("the supervisor has said so", (training.folder("job") / "ended.json").exists)
    training.start()
    ended = until("the end is reported", lambda: control_plane.exits("job"))[0]
    assert (ended.outcome, ended.reason.code) == ("Failed", "RankFailed")
    assert training.times_started("job") == 1


def test_sigterm_leaves_units_running_and_end_units_ends_them(
    training: AgentProcess, control_plane: ListeningControlPlane
) -> None:
    rank, actor = training.rank("job"), training.supervisor("job")
    assert training.terminate() == 0
    assert not gone(rank)
    training.end_units()
    assert gone(rank)
    until("Ray has ended its actor", lambda: gone(actor))


def test_a_control_plane_that_was_away_hears_everything_afterwards(
    training: AgentProcess, control_plane: ListeningControlPlane
) -> None:
    control_plane.stop()
    before = max(control_plane.losses("job"))
    progress = training.folder("job") / "progress.jsonl"
    until("it trains on", lambda: len(progress.read_text().splitlines()) > before + 30)
    rank = training.rank("job")
    assert rank is not None
    rank.send_signal(signal.SIGKILL)
    until("the agent has noticed", (training.folder("job") / "verdict.json").exists)
    control_plane.start()
    ended = until("the end is reported", lambda: control_plane.exits("job"))[0]
    losses = control_plane.losses("job")
    assert max(losses) == ended.step > before + 30
    assert sorted(losses) == list(range(1, ended.step + 1))
    assert len(control_plane.registrations) > 1


def test_an_older_assignment_is_refused(
    training: AgentProcess, control_plane: ListeningControlPlane
) -> None:
    control_plane.assign("node-a", 1, a_launch("job", slots=(A,)), term=2)
    until(
        "the new term is obeyed",
        lambda: [r for r in control_plane.reports if r.applied_term == 2],
    )
    # The deposed one goes on speaking.
    control_plane.assign("node-a", 9, a_launch("other", slots=(B,)), term=1)
    control_plane.stop()
    control_plane.start()
    until("it registers again", lambda: len(control_plane.registrations) > 1)
    assert control_plane.registrations[-1].highest_term == 2
    log = training.state / "node-a.log"
    until("it refuses", lambda: "assignment_refused" in log.read_text())
    assert not training.folder("other").exists()
    assert not gone(training.rank("job"))


def test_without_its_head_ray_is_lost_and_comes_back(
    training: AgentProcess,
    control_plane: ListeningControlPlane,
    ray: LocalRay,
    idle: AgentProcess,
) -> None:
    rank = training.rank("job")
    idle.start()
    driver = until("a node that runs nothing has joined too", idle.ray_driver)
    ray.kill_head()
    ended = until("the end is reported", lambda: control_plane.exits("job"))[0]
    assert (ended.outcome, ended.reason.code) == ("Lost", "RayLost")
    assert gone(rank)
    control_plane.assign("node-a", 2, a_launch("job", attempt=2, slots=(A,)))
    ray.start()
    # It must not go on to ask this head for what only the one before knew.
    until("that driver has ended", lambda: gone(driver))
    until("the next attempt trains", lambda: training.times_started("job", attempt=2), 300)
    assert training.times_started("job") == 1
