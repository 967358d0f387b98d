"""Brings a unit's supervisor up: through Ray on this node, or in the pod of its job."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from agent import launching
from agent.control_folder import Phase
from agent.desired import UnitKey
from agent.job_pods import PodControlFolder
from agent.ray_bridge import RayAnswerError, RayAwayError
from controlplane.domain.reason import Reason, ReasonCode

POD_STARTS_WITHIN_SECONDS = 60.0
"""What a pod that is up needs to start a process, on a machine however busy."""
LOOK_AGAIN_SECONDS = 0.05

_ASK_AGAIN = Reason(ReasonCode.RAY_LOST, "Ray went away while the unit's actor was started")

_log = structlog.get_logger(__name__)


class Ray(Protocol):
    """What is asked of Ray; ``RayBridge`` says the details."""

    async def wait_joined(self, seconds: float) -> bool:
        """Whether Ray answers, within ``seconds``."""
        ...

    async def start_unit(self, name: str, spec: dict[str, Any]) -> str:
        """Starts a unit's actor; returns why it started nothing, or empty."""
        ...

    async def kill(self, name: str) -> None:
        """Ends an actor."""
        ...

    async def head_answers(self) -> bool:
        """Whether Ray's head can be reached."""
        ...

    def rejoin(self) -> None:
        """Joins Ray anew: this one is not to be trusted."""
        ...


class RayStarts:
    """Starts of one node through Ray."""

    def __init__(self, ray: Ray, node: str, patience_seconds: float) -> None:
        self._ray = ray
        self._node = node
        self._patience_seconds = patience_seconds

    async def start(
        self,
        key: UnitKey,
        spec: dict[str, Any],
        leaving: Callable[[], bool],
        unclaimed: Callable[[], bool],
    ) -> Reason | None:
        """Why the unit does not run; None if its supervisor has taken it on.

        Args:
            key: The unit.
            spec: What its supervisor is told.
            leaving: Whether it was told to leave meanwhile.
            unclaimed: Whether no supervisor has taken it on yet.
        """
        problem = await self._wait_for_ray(leaving) or await self._start_actor(key, spec)
        if problem is _ASK_AGAIN:
            # Should what is there of the first try come up all the same, the claim lets only
            # one of both start the rank.
            problem = await self._wait_for_ray(leaving)
            if problem is None and unclaimed():
                await self._ray.kill(launching.actor_name(self._node, key))
                problem = await self._start_actor(key, spec)
        return problem

    async def _wait_for_ray(self, leaving: Callable[[], bool]) -> Reason | None:
        """Why there is no use in waiting longer; None if Ray is there."""
        patience = time.monotonic() + self._patience_seconds
        while not await self._ray.wait_joined(0.5):
            if leaving():
                return Reason(ReasonCode.RAY_LOST, "it was told to leave before Ray was there")
            if time.monotonic() > patience:
                message = "Ray does not answer on this node, so nothing can be started"
                return Reason(ReasonCode.RAY_LOST, message)
        return None

    async def _start_actor(self, key: UnitKey, spec: dict[str, Any]) -> Reason | None:
        name = launching.actor_name(self._node, key)
        try:
            refused = await self._ray.start_unit(name, dict(spec))
        except (RayAwayError, RayAnswerError) as error:
            # Most likely Ray went away, perhaps for another to come in its place.
            _log.warning("ray_did_not_start_actor", unit=str(key), error=str(error))
            self._ray.rejoin()
            return _ASK_AGAIN
        return Reason(ReasonCode.START_REFUSED, refused) if refused else None


async def start_in_pod(folder: PodControlFolder, spec: dict[str, Any]) -> Reason | None:
    """Why the unit does not run; None if its supervisor in the pod has taken it on."""
    try:
        folder.hand_over(spec)
    except OSError as error:
        message = f"the unit cannot be handed to the pod of its job: {error}"
        return Reason(ReasonCode.POD_NOT_STARTED, message)
    patience = time.monotonic() + POD_STARTS_WITHIN_SECONDS
    while folder.observe().phase is Phase.UNCLAIMED:
        if folder.host_lost:
            message = "the pod of its job ended before it had started the unit"
            return Reason(ReasonCode.RANK_LOST, message)
        if time.monotonic() > patience:
            message = (
                f"the pod of its job is up and has not started the unit within "
                f"{POD_STARTS_WITHIN_SECONDS:.0f} s"
            )
            return Reason(ReasonCode.POD_NOT_STARTED, message)
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    return None
