"""All that Headrace asks of Ray; the only module that imports it.

It runs in a process of its own (``ray_driver``), because a Ray driver ends hard when Ray's head
goes away, and the agent must not.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agent.unit_actor import UnitSupervisor

NAMESPACE = "headrace"
PREFIX = "unit"


@dataclass
class RayNode:
    """This machine's part of a Ray cluster.

    Attributes:
        node: Headrace's name of the node.
        address: Ray's head, as host:port.
        node_ip: The address that this machine's raylet was started with; empty to let Ray guess.
        raylet_socket: Where this machine's raylet listens, once joined.
    """

    node: str
    address: str
    node_ip: str = ""
    raylet_socket: str = field(init=False, default="")
    _affinity: NodeAffinitySchedulingStrategy = field(init=False, repr=False)

    def connect(self) -> None:
        """Joins the cluster as a driver. Raises what Ray raises if it is not there."""
        more: dict[str, Any] = {"_node_ip_address": self.node_ip} if self.node_ip else {}
        ray.init(
            address=self.address,
            namespace=NAMESPACE,
            log_to_driver=False,
            configure_logging=False,
            **more,
        )
        # The driver hangs on this machine's raylet, and so shall every actor of this node.
        here = ray.get_runtime_context().get_node_id()
        self._affinity = NodeAffinitySchedulingStrategy(here, soft=False)
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        (mine,) = [node for node in nodes if node["NodeID"] == here]
        self.raylet_socket = str(mine["RayletSocketName"])

    def start_unit(self, name: str, spec: Mapping[str, Any], timeout_seconds: float) -> str:
        """Starts an actor and has it start the unit.

        The actor asks Ray for no accelerator: those are Headrace's to give, by UUID, and the
        rank's environment is made without any choice of Ray's.

        Returns:
            Empty, or why the supervisor started nothing.
        """
        actor: Any = (
            ray.remote(UnitSupervisor)
            .options(
                name=name,
                lifetime="detached",
                max_restarts=0,
                max_task_retries=0,
                num_cpus=0,
                num_gpus=0,
                scheduling_strategy=self._affinity,
            )
            .remote()
        )
        try:
            return str(ray.get(actor.start.remote(dict(spec)), timeout=timeout_seconds))
        except RayTaskError as error:
            return f"the supervisor failed: {error.cause!r}"
        except RayActorError as error:
            if "creation task" in str(error):
                return f"the supervisor cannot be made on this node: {error}"
            raise  # Ray, or the actor's process, went away

    def units(self) -> list[str]:
        """Names of this node's actors that are alive."""
        mine = f"{PREFIX}:{self.node}:"
        return [name for name in ray.util.list_named_actors() if name.startswith(mine)]

    def kill(self, name: str) -> None:
        """Ends an actor, and with it whatever it still supervises."""
        with contextlib.suppress(ValueError):
            ray.kill(ray.get_actor(name), no_restart=True)

    def close(self) -> None:
        """Leaves the cluster; detached actors stay."""
        ray.shutdown()
