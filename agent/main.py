"""Plugs the agent together and runs it."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator

import structlog

from agent.control_plane_client import ControlPlaneClient
from agent.gpu_probe import AcceleratorsMissingError, GpuProbe, installed_nvml
from agent.journal import Journal, JournalDamagedError
from agent.outbox import Outbox
from agent.ray_bridge import RayBridge
from agent.settings import AgentSettings, SettingsError, parse
from agent.units import Units, UnitSettings
from controlplane.logs import set_up_logs

TICK_SECONDS = 0.25
"""How often units are looked after."""
HEALTH_PERIOD_SECONDS = 10.0

_log = structlog.get_logger(__name__)


class AlreadyRunningError(Exception):
    """Another agent speaks for this node."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    set_up_logs()
    try:
        settings = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
        with alone(settings.units, wait=settings.wait_for_predecessor):
            asyncio.run(_end_units(settings) if settings.command == "end-units" else run(settings))
    except (
        SettingsError,
        AlreadyRunningError,
        AcceleratorsMissingError,
        JournalDamagedError,
    ) as error:
        sys.stderr.write(f"agent: {error}\n")
        return 2
    return 0


async def run(settings: AgentSettings) -> None:
    """Runs the agent until SIGTERM or SIGINT. Units go on without it, unless told otherwise."""
    stopping = _stop_event()
    probe = GpuProbe(installed_nvml())
    found = probe.find(settings.description.name, settings.accelerators)
    journal, outbox = Journal(settings.units.root / "journal.jsonl"), Outbox()
    bridge = RayBridge(settings.description.name, settings.ray)
    wake = asyncio.Event()
    units = Units(
        settings.units,
        {one.id: one for one in found},
        journal,
        outbox,
        bridge,
        wake.set,
    )
    units.adopt()
    bridge.on_joined = units.prune_actors
    client = ControlPlaneClient(
        settings.control_plane, settings.description, units, journal, outbox, wake, settings.tls
    )
    parts = [
        asyncio.create_task(bridge.run(), name="ray"),
        asyncio.create_task(client.run(), name="control plane"),
        asyncio.create_task(_look_after(units), name="units"),
        asyncio.create_task(_watch_health(probe, units), name="health"),
    ]
    _say_ready(settings, [one.id for one in found])
    stop = asyncio.create_task(stopping.wait())
    try:
        done, _ = await asyncio.wait([stop, *parts], return_when=asyncio.FIRST_COMPLETED)
        for part in done - {stop}:
            part.result()  # none of them ends by itself: tell why
    finally:
        ended = settings.end_units_on_exit and stop.done()
        await units.close(end_units=ended)
        for part in (stop, *parts):
            part.cancel()
        await asyncio.gather(stop, *parts, return_exceptions=True)
        await client.flush()
        journal.close()
        _log.info("agent_stopped", units_left_running=len(units.running()))


async def _end_units(settings: AgentSettings) -> None:
    """Ends all units that an agent of this node left running."""
    journal, outbox = Journal(settings.units.root / "journal.jsonl"), Outbox()
    bridge = RayBridge(settings.description.name, settings.ray)
    units = Units(settings.units, {}, journal, outbox, bridge, lambda: None)
    units.adopt()
    ray = asyncio.create_task(bridge.run())
    await units.close(end_units=True)
    # Supervisors that have nothing to supervise are left; without Ray there are none.
    if await bridge.head_answers() and await bridge.wait_joined(60.0):
        for name in await bridge.units():
            await bridge.kill(name)
    ray.cancel()
    await asyncio.gather(ray, return_exceptions=True)
    journal.close()


async def _look_after(units: Units) -> None:
    while True:
        try:
            units.tick()
        except OSError as error:
            # A full disk, most likely. The next tick tries again; nothing was said in between.
            _log.error("state_folder_unusable", error=str(error))
        await asyncio.sleep(TICK_SECONDS)


async def _watch_health(probe: GpuProbe, units: Units) -> None:
    while True:
        units.health(await asyncio.to_thread(probe.problems))
        await asyncio.sleep(HEALTH_PERIOD_SECONDS)


def _stop_event() -> asyncio.Event:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


def _say_ready(settings: AgentSettings, accelerators: list[str]) -> None:
    ready = {"ready": True, "node": settings.description.name, "accelerators": accelerators}
    sys.stdout.write(json.dumps(ready | {"pid": os.getpid()}) + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def alone(settings: UnitSettings, *, wait: bool = False) -> Iterator[None]:
    """Two agents of one node would start everything twice.

    Args:
        settings: Where the node's agents keep what they know.
        wait: Whether to wait until the other one has ended.

    Raises:
        AlreadyRunningError: There is another one, and it is not waited for.
    """
    root = settings.root
    root.parent.mkdir(parents=True, exist_ok=True)
    # Ranks of another user pass through it to folders of their own, whose names they know.
    root.mkdir(mode=0o711 if settings.launch.run_as_uid >= 0 else 0o700, exist_ok=True)
    with (root / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(
                f"another agent uses {root}; end it first, or give this one a --node of its own"
            ) from None
        yield
