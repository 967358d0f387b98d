"""Carrying out commands, with a Ray that a test plays and supervisors that are real."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.control_folder import ChangeLine, claim, clear_old_folders, process_json
from agent.desired import Assignment, UnitKey, WantedLaunch, WantedUnit
from agent.journal import Journal
from agent.launching import LaunchSettings
from agent.outbox import Outbox
from agent.ray_bridge import RayAnswerError
from agent.units import Units, UnitSettings
from controlplane.domain.ids import AcceleratorId
from controlplane.domain.node import Accelerator
from controlplane.domain.reason import ReasonCode
from controlplane.domain.record import Intent, Outcome
from headrace.api.processes import Process, process

pytestmark = pytest.mark.process

KEY = UnitKey("job", 1, 0)
TINY = Path(__file__).parents[1] / "ray"
SUPERVISOR = """
import json, sys
from agent.unit_actor import UnitSupervisor
print(json.dumps(UnitSupervisor().start(json.loads(sys.stdin.readline()))), flush=True)
sys.stdin.readline()
"""


def supervisor() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{TINY}{os.pathsep}{TINY.parents[2]}"},
    )


@dataclass
class PlayedRay:
    """Starts supervisors as plain processes; can be away, and can fail."""

    there: bool = True
    failures: list[str] = field(default_factory=list)
    rejoined: int = 0
    actors: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    async def wait_joined(self, seconds: float) -> bool:
        await asyncio.sleep(0 if self.there else 0.01)
        return self.there

    async def start_unit(self, name: str, spec: dict[str, Any]) -> str:
        if self.failures:
            raise RayAnswerError(self.failures.pop(0))
        actor = self.actors[name] = supervisor()
        assert actor.stdin is not None
        assert actor.stdout is not None
        actor.stdin.write(json.dumps(spec) + "\n")
        actor.stdin.flush()
        return str(json.loads(await asyncio.to_thread(actor.stdout.readline)))

    async def kill(self, name: str) -> None:
        actor = self.actors.pop(name, None)
        if actor is not None:
            actor.kill()
            actor.communicate()

    async def head_answers(self) -> bool:
        return self.there

    def rejoin(self) -> None:
        self.rejoined += 1


@dataclass
class World:
    """One node of a test."""

    root: Path
    ray: PlayedRay = field(default_factory=PlayedRay)
    outbox: Outbox = field(default_factory=Outbox)
    patience_seconds: float = 60.0
    journals: list[Journal] = field(default_factory=list)

    def units(self) -> Units:
        settings = UnitSettings(
            "n",
            self.root,
            LaunchSettings(module="tiny_child"),
            end_grace_seconds=0.2,
            supervisor_grace_seconds=0.2,
            ray_patience_seconds=self.patience_seconds,
        )
        slot = Accelerator(AcceleratorId("a"), "cpu")
        self.journals.append(Journal(self.root / "journal.jsonl"))
        made = Units(
            settings,
            {"a": slot},
            self.journals[-1],
            self.outbox,
            self.ray,
            lambda: None,
        )
        made.adopt()
        return made

    def outcome(self, key: UnitKey = KEY) -> tuple[Outcome, ReasonCode | None] | None:
        for told, end in self.outbox.batch().exits:
            if told == key:
                return end.outcome, end.reason.code if end.reason else None
        return None


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for journal in made.journals:
        journal.close()
    for actor in made.ray.actors.values():
        actor.kill()
        actor.communicate()


def launch(*wishes: str, intent: Intent = Intent.RUN, **more: Any) -> WantedLaunch:
    spec = {"command": {"program": list(wishes)}, "training": {"steps": more.pop("steps", 10**6)}}
    manifest = more.pop("manifest_json", json.dumps({"spec": spec}))
    units = more.pop("units", (WantedUnit(0, ("a",)),))
    return WantedLaunch("job", 1, intent, units, manifest_json=manifest, **more)


async def ticking(units: Units, what: str, look: Callable[[], Any]) -> None:
    async with asyncio.timeout(90):
        while not look():
            units.tick()
            await asyncio.sleep(0.02)


def played(story: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await story()

    asyncio.run(whole())


def test_a_unit_starts_and_succeeds(world: World) -> None:
    async def story() -> None:
        units = world.units()
        units.obey(Assignment(1, 1, (launch(steps=2),)))
        await ticking(units, "it ends", world.outcome)
        assert world.outcome() == (Outcome.SUCCEEDED, None)
        await ticking(units, "its actor goes", lambda: not world.ray.actors)
        await units.close(end_units=False)

    played(story)


def test_ranks_are_asked_for_a_plan_and_their_answer_is_told_until_it_is_durable(
    world: World,
) -> None:
    async def story() -> None:
        units = world.units()
        units.obey(Assignment(1, 1, (launch(plan="dp1"),)))
        await ticking(units, "it trains", lambda: world.outbox.batch().progress)
        assert not (world.root / "units/job/1/0/plan").exists()
        units.obey(Assignment(1, 2, (launch(plan="dp1-ga2"),)))
        await ticking(units, "it went over", lambda: world.outbox.batch().plans)
        await units.close(end_units=False)
        # Another agent takes over before the answer was acknowledged.
        world.outbox = Outbox()
        units = world.units()
        units.obey(Assignment(1, 3, (launch(plan="dp1-ga2"),)))
        batch = world.outbox.batch()
        (((key, told),)) = batch.plans
        (line,) = told.lines
        assert key == KEY
        assert line == ChangeLine("dp1", "dp1-ga2", line.step, 0.5, (("build", 0.1),))
        units.acknowledged(batch)
        assert not world.outbox.batch().plans
        await units.close(end_units=False)
        world.outbox = Outbox()
        units = world.units()
        units.obey(Assignment(1, 4, (launch(plan="dp9"),)))
        await ticking(units, "it says no", lambda: world.outbox.batch().plans)
        (((_, told),)) = world.outbox.batch().plans
        assert told.lines == (ChangeLine("", "dp9", refused="too many"),)
        units.obey(Assignment(1, 5, (launch(plan="dp9", intent=Intent.END),)))
        await ticking(units, "it ends", world.outcome)
        assert len((world.root / "units/job/1/0/starts").read_text().split()) == 1
        await units.close(end_units=False)

    played(story)


def test_a_start_waits_for_ray_but_not_for_ever(world: World) -> None:
    async def story() -> None:
        world.ray.there = False
        world.patience_seconds = 0.05
        units = world.units()
        units.obey(Assignment(1, 1, (launch(),)))
        await ticking(units, "it is given up", world.outcome)
        assert world.outcome() == (Outcome.FAILED, ReasonCode.RAY_LOST)
        await units.close(end_units=False)

    played(story)


def test_a_start_that_waits_for_ray_can_be_taken_back(world: World) -> None:
    async def story() -> None:
        world.ray.there = False
        units = world.units()
        units.obey(Assignment(1, 1, (launch(),)))
        units.obey(Assignment(1, 2, (launch(intent=Intent.END),)))
        await ticking(units, "it is given up", world.outcome)
        assert world.outcome() == (Outcome.NEVER_STARTED, ReasonCode.RAY_LOST)
        await units.close(end_units=False)

    played(story)


def test_a_ray_that_was_replaced_is_asked_once_more(world: World) -> None:
    async def story() -> None:
        world.ray.failures = ["the old head is gone"]
        units = world.units()
        units.obey(Assignment(1, 1, (launch(steps=1),)))
        await ticking(units, "it ends", world.outcome)
        assert world.outcome() == (Outcome.SUCCEEDED, None)
        assert world.ray.rejoined == 1
        await units.close(end_units=False)

    played(story)


def test_a_ray_that_keeps_failing_is_lost(world: World) -> None:
    async def story() -> None:
        world.ray.failures = ["no", "no"]
        units = world.units()
        units.obey(Assignment(1, 1, (launch(),)))
        await ticking(units, "it is given up", world.outcome)
        assert world.outcome() == (Outcome.FAILED, ReasonCode.RAY_LOST)
        await units.close(end_units=False)

    played(story)


def test_an_agent_that_died_between_journal_and_start_never_starts_it(world: World) -> None:
    async def story() -> None:
        journal = Journal(world.root / "journal.jsonl")
        journal.start(KEY, ("a",))
        journal.close()
        units = world.units()
        units.obey(Assignment(1, 1, (launch(),)))
        await ticking(units, "it is said to be lost", world.outcome)
        assert world.outcome() == (Outcome.LOST, ReasonCode.RANK_LOST)
        assert not world.ray.actors
        await units.close(end_units=False)

    played(story)


def test_a_verdict_that_cannot_be_read_is_found_anew(world: World) -> None:
    """As one that a newer agent wrote: it must not keep this one from starting."""
    journal = Journal(world.root / "journal.jsonl")
    journal.start(KEY, ("a",))
    journal.close()
    folder = world.root / "units" / "job" / "1" / "0"
    folder.mkdir(parents=True)
    (folder / "verdict.json").write_text(json.dumps({"outcome": "Vaporised"}))

    async def story() -> None:
        units = world.units()
        await ticking(units, "it is said to be lost", world.outcome)
        assert world.outcome() == (Outcome.LOST, ReasonCode.RANK_LOST)
        await units.close(end_units=False)

    played(story)


def test_what_was_refused_stays_refused(world: World) -> None:
    async def story() -> None:
        units = world.units()
        broken = launch(manifest_json="{")
        units.obey(Assignment(1, 1, (broken,)))
        assert world.outcome() == (Outcome.FAILED, ReasonCode.START_REFUSED)
        units.acknowledged(world.outbox.batch())
        # The control plane may not have folded it yet, and lists it once more.
        units.obey(Assignment(1, 2, (launch(),)))
        assert world.outcome() == (Outcome.FAILED, ReasonCode.START_REFUSED)
        assert units.running() == {}
        await units.close(end_units=False)

    played(story)


@pytest.mark.parametrize("reachable", [True, False])
def test_checkpoints_are_purged_before_that_is_said(world: World, reachable: bool) -> None:
    store = world.root / "store"
    (store / "job").mkdir(parents=True)
    (store / "job" / "left").write_text("x")
    url = str(store) if reachable else "nosuchscheme://store"
    manifest = json.dumps({"spec": {"checkpoint": {"store": url}}})

    async def story() -> None:
        units = world.units()
        gone = launch(intent=Intent.END, manifest_json=manifest, units=(), purge=True)
        units.obey(Assignment(1, 1, (gone,)))
        if reachable:
            await ticking(units, "the purge is told", world.outcome)
            assert world.outcome() == (Outcome.NEVER_STARTED, None)
            assert not (store / "job").exists()
        else:
            with capture_logs() as said:
                await ticking(
                    units,
                    "it was tried",
                    lambda: [line for line in said if line["event"] == "purge_failed"],
                )
            assert world.outcome() is None
            assert (store / "job" / "left").exists()
        await units.close(end_units=False)

    played(story)


def test_actors_of_an_agent_with_the_same_name_are_let_be_until_the_node_is_ours(
    world: World,
) -> None:
    async def story() -> None:
        units = world.units()
        world.ray.actors["unit of another"] = supervisor()
        units.prune_actors(["unit of another"])
        await asyncio.sleep(0)  # whatever was begun has its turn
        assert world.ray.actors
        units.registered()
        await ticking(units, "it goes", lambda: not world.ray.actors)
        await units.close(end_units=False)

    played(story)


def test_leaving_can_end_all_units(world: World) -> None:
    async def story() -> None:
        units = world.units()
        units.obey(Assignment(1, 1, (launch("ignore-sigterm"),)))
        await ticking(units, "it trains", lambda: world.outbox.batch().progress)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                await units.close(end_units=True)
        assert world.outcome() == (Outcome.FAILED, None)

    played(story)


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_supervisor_that_hangs_does_not_keep_its_accelerators(
    world: World, has_begun: bool
) -> None:
    hanging = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.readline()"], stdin=-1)
    journal = Journal(world.root / "journal.jsonl")
    journal.start(KEY, ("a",))
    journal.close()
    folder = world.root / "units" / "job" / "1" / "0"
    folder.mkdir(parents=True)
    me = process_json(process(hanging.pid))
    claim(folder, {"by": "supervisor", "supervisor": me, "raylet": process_json(process(1))})
    if has_begun:
        (folder / "process.json").write_text(json.dumps({"pid": hanging.pid, "start_ticks": 1}))

    async def story() -> None:
        units = world.units()
        assert list(units.running()) == [KEY]
        units.obey(Assignment(1, 1, (launch(intent=Intent.END),)))
        await ticking(units, "it is gone", world.outcome)
        assert world.outcome() == (Outcome.LOST, None)
        await units.close(end_units=False)

    try:
        played(story)
    finally:
        hanging.kill()
        hanging.communicate()


@pytest.mark.parametrize(
    ("raylet_lives", "head_answers", "told"),
    [
        (True, True, (Outcome.FAILED, ReasonCode.RANK_FAILED)),
        (False, True, (Outcome.LOST, ReasonCode.RAY_LOST)),
        (True, False, (Outcome.LOST, ReasonCode.RAY_LOST)),
    ],
)
def test_a_rank_that_is_killed_as_ray_goes_has_not_failed(
    world: World, raylet_lives: bool, head_answers: bool, told: tuple[Outcome, ReasonCode]
) -> None:
    """Its supervisor lived long enough to tell its end, which was seen before that of Ray."""
    journal = Journal(world.root / "journal.jsonl")
    journal.start(KEY, ("a",))
    journal.close()
    folder = world.root / "units" / "job" / "1" / "0"
    folder.mkdir(parents=True)
    init = process(1)
    assert init is not None
    raylet = init if raylet_lives else Process(init.pid, init.start_ticks + 1)
    supervisor_json, raylet_json = process_json(init), process_json(raylet)
    claim(folder, {"by": "supervisor", "supervisor": supervisor_json, "raylet": raylet_json})
    (folder / "process.json").write_text(json.dumps({"pid": 1, "start_ticks": 0}))
    (folder / "ended.json").write_text(json.dumps({"exit_code": -signal.SIGKILL}))

    async def story() -> None:
        units = world.units()
        world.ray.there = head_answers
        await ticking(units, "its end is told", world.outcome)
        assert world.outcome() == told
        assert world.ray.rejoined == (told[1] is ReasonCode.RAY_LOST)
        await units.close(end_units=False)

    played(story)


def test_old_folders_go_and_those_not_told_stay(tmp_path: Path) -> None:
    for attempt in range(1, 7):
        folder = tmp_path / "job" / str(attempt) / "0"
        folder.mkdir(parents=True)
        if attempt != 2:
            (folder / "verdict.json").write_text("{}")
    for number in range(120):
        (tmp_path / f"old-{number}" / "1" / "0").mkdir(parents=True)
        os.utime(tmp_path / f"old-{number}", (number, number))
    os.utime(tmp_path / "old-0", (0, 0))
    clear_old_folders(tmp_path, busy={"old-0"})
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["2", "4", "5", "6"]
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 101
    assert {"job", "old-0", "old-119"} <= left
    assert "old-1" not in left
