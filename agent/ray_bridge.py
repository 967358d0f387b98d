"""The agent's side of ``ray_driver``: keeps one running, and asks it things."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

FIRST_BACK_OFF_SECONDS = 1.0
MOST_BACK_OFF_SECONDS = 15.0
HEAD_LOOK_SECONDS = 1.0
JOIN_TIMEOUT_SECONDS = 90.0
"""Joining takes a second or two, and much longer on a machine that has just started Ray."""

_log = structlog.get_logger(__name__)


class RayAwayError(Exception):
    """Ray could not be reached, or went away before it answered."""


class RayAnswerError(Exception):
    """Ray answered that it cannot do it."""


@dataclass(frozen=True, slots=True)
class RayAddress:
    """How this node joins Ray.

    Attributes:
        address: Ray's head, as host:port.
        node_ip: The address that this machine's raylet was started with; empty to let Ray guess.
        auth_mode: ``RAY_AUTH_MODE`` of the cluster.
    """

    address: str
    node_ip: str = ""
    auth_mode: str = "disabled"


def driver_environment(auth_mode: str) -> dict[str, str]:
    """Ray's settings that come from the environment; it reads them while it is imported."""
    return {
        "RAY_AUTH_MODE": auth_mode,
        "RAY_USAGE_STATS_ENABLED": "0",
        # Below `uv run`, Ray would pack the working folder and start each actor by `uv run` there.
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }


class RayBridge:
    """Speaks to one driver at a time, and starts the next when that ends."""

    def __init__(self, node: str, ray: RayAddress) -> None:
        self._node = node
        self._ray = ray
        self.on_joined: Callable[[list[str]], None] | None = None
        self._joined = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._last_id = 0

    @property
    def joined(self) -> bool:
        """Whether Ray answers now."""
        return self._joined.is_set()

    async def wait_joined(self, seconds: float) -> bool:
        """Whether Ray answers, within ``seconds``."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._joined.wait(), seconds)
        return self.joined

    async def run(self) -> None:
        """Keeps a driver running until it is cancelled."""
        back_off = FIRST_BACK_OFF_SECONDS
        while True:
            if not await self.head_answers():
                await asyncio.sleep(HEAD_LOOK_SECONDS)  # a driver could only fail, slowly
                continue
            if await self._one_driver():
                back_off = FIRST_BACK_OFF_SECONDS
            await asyncio.sleep(back_off)
            back_off = min(back_off * 2, MOST_BACK_OFF_SECONDS)

    async def start_unit(self, name: str, spec: dict[str, Any]) -> str:
        """Starts a unit; returns why its supervisor started nothing, or empty.

        Raises:
            RayAwayError: Nobody knows whether it was started.
            RayAnswerError: Ray could not start the actor.
        """
        return str(await self._ask({"op": "start_unit", "name": name, "spec": spec}) or "")

    async def kill(self, name: str) -> None:
        """Ends an actor. If Ray is away, so is the actor, or it is ended when Ray comes back."""
        with contextlib.suppress(RayAwayError, RayAnswerError):
            await self._ask({"op": "kill", "name": name})

    async def units(self) -> list[str]:
        """Names of this node's actors."""
        return list(await self._ask({"op": "units"}))

    async def head_answers(self, seconds: float = 2.0) -> bool:
        """Whether something listens at the head's address."""
        host, _, port = self._ray.address.rpartition(":")
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), seconds)
        except (OSError, TimeoutError, ValueError):
            return False
        writer.close()
        return True

    def rejoin(self) -> None:
        """Ends the present driver, so that the next joins whatever Ray there is then."""
        self._joined.clear()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _ask(self, request: dict[str, Any]) -> Any:
        process = self._process
        if process is None or process.stdin is None or not self.joined:
            raise RayAwayError(f"Ray at {self._ray.address} does not answer")
        self._last_id += 1
        request["id"] = self._last_id
        answer = self._waiting[self._last_id] = asyncio.get_running_loop().create_future()
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            await process.stdin.drain()
            return await answer
        except (BrokenPipeError, ConnectionResetError):
            raise RayAwayError(f"Ray at {self._ray.address} went away") from None
        finally:
            self._waiting.pop(request["id"], None)

    async def _one_driver(self) -> bool:
        """Runs one driver to its end; whether it had joined Ray."""
        process = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent.ray_driver", "--node", self._node),
            *("--ray-address", self._ray.address, "--ray-node-ip", self._ray.node_ip),
            *("--agent-pid", str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **driver_environment(self._ray.auth_mode)},
            start_new_session=True,
            limit=1 << 24,
        )
        joined = False
        try:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), JOIN_TIMEOUT_SECONDS)
            while line:
                joined = self._heard(json.loads(line)) or joined
                line = await process.stdout.readline()
        except (TimeoutError, ValueError) as error:
            _log.warning("ray_driver_unusable", error=repr(error))
        finally:
            self._joined.clear()
            self._process = None
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(RayAwayError(f"Ray at {self._ray.address} went away"))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
        _log.info("ray_driver_ended", code=process.returncode, had_joined=joined)
        return joined

    def _heard(self, message: dict[str, Any]) -> bool:
        if "ready" in message:
            self._joined.set()
            _log.info("ray_joined", address=self._ray.address, actors=len(message["ready"]))
            if self.on_joined is not None:
                self.on_joined(list(message["ready"]))
            return True
        answer = self._waiting.get(message["id"])
        if answer is not None and not answer.done():
            if "error" in message:
                answer.set_exception(RayAnswerError(message["error"]))
            else:
                answer.set_result(message["value"])
        return False
