"""From a wanted unit to what its rank and its supervisor are told. Pure."""

import json
from dataclasses import dataclass, replace
from typing import Any

from agent.desired import UnitKey, WantedLaunch, WantedUnit
from agent.unit_actor import POD_SECRETS, UnitSpec
from controlplane.domain.node import Accelerator


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """How this node starts ranks.

    Attributes:
        node: Name of the node, for people.
        module: Module that a rank runs.
        advertise_address: Where other nodes reach this one; unit 0 listens there.
        secrets_folder: Where secrets lie, as files ``name/key``; empty for none.
        run_as_uid: User that ranks run as; -1 for Ray's own.
    """

    node: str = ""
    module: str = "headrace.workloads.launch"
    advertise_address: str = "127.0.0.1"
    secrets_folder: str = ""
    run_as_uid: int = -1


def launch_json(
    launch: WantedLaunch,
    unit: WantedUnit,
    settings: LaunchSettings,
    accelerators: dict[str, Accelerator],
) -> dict[str, Any]:
    """What the rank finds in its control folder."""
    kind = accelerators[unit.accelerators[0]].type if unit.accelerators else "cpu"
    return {
        "uid": launch.uid,
        "attempt": launch.attempt,
        "unit": unit.index,
        "units_total": launch.units_total,
        "job_name": launch.job_name,
        "namespace": launch.namespace,
        "manifest": json.loads(launch.manifest_json),
        "plan": launch.plan,
        "first_rank": unit.first_rank,
        "ranks_total": launch.ranks_total,
        "accelerators": list(unit.accelerators),
        "accelerator_type": kind,
        "cpu_cores": list(unit.cpu_cores),
        "host_memory_bytes": unit.host_memory_bytes,
        "rendezvous": launch.rendezvous if unit.index else "",
        "joins": unit.joins,
        "bind_address": settings.advertise_address,
        "node": settings.node,
    }


def unit_spec(
    launch: WantedLaunch,
    unit: WantedUnit,
    folder: str,
    settings: LaunchSettings,
    accelerators: dict[str, Accelerator],
) -> UnitSpec:
    """What the supervisor is told. Secrets go as references: no value passes through Ray."""
    environment = {"OMP_NUM_THREADS": str(max(1, len(unit.cpu_cores)))}
    if unit.host_memory_bytes:
        # Told and not enforced: a limit on address space would stop CUDA, which reserves far more
        # than it uses, and a cgroup is not the agent's to make everywhere.
        environment["HEADRACE_HOST_MEMORY_BYTES"] = str(unit.host_memory_bytes)
    secrets: list[tuple[str, str, str]] = []
    for entry in json.loads(launch.manifest_json).get("spec", {}).get("env") or ():
        reference = (entry.get("valueFrom") or {}).get("secretKeyRef")
        if reference:
            secrets.append((entry["name"], reference["name"], reference["key"]))
        else:
            environment[entry["name"]] = str(entry.get("value") or "")
    gpus = [slot for slot in unit.accelerators if accelerators[slot].type != "cpu"]
    environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return UnitSpec(
        folder=folder,
        module=settings.module,
        environment=tuple(environment.items()),
        secrets=tuple(secrets),
        secrets_folder=settings.secrets_folder,
        cpu_cores=unit.cpu_cores,
        run_as_uid=settings.run_as_uid,
    )


def in_pod(settings: LaunchSettings, address: str) -> LaunchSettings:
    """The same for a unit in a pod of its job's own.

    Args:
        settings: How this node starts ranks.
        address: The pod's.
    """
    # Its user is the pod's, whatever ranks of the node's Ray worker run as.
    return replace(
        settings, advertise_address=address, secrets_folder=str(POD_SECRETS), run_as_uid=-1
    )


def steps_total(manifest_json: str) -> int:
    """Optimizer steps that the job wants; 0 where unknown."""
    try:
        training = json.loads(manifest_json).get("spec", {}).get("training") or {}
        return int(training.get("steps") or 0)
    except (ValueError, AttributeError, TypeError):
        return 0


def checkpoint_store(manifest_json: str) -> str:
    """Path or URL of the job's checkpoints; empty where it keeps none."""
    try:
        checkpoint = json.loads(manifest_json).get("spec", {}).get("checkpoint") or {}
    except (ValueError, AttributeError):
        return ""
    return str(checkpoint.get("store") or "")


def actor_name(node: str, key: UnitKey) -> str:
    """The name of a unit's actor; ``ray_actors`` finds a node's by this prefix."""
    return f"unit:{node}:{key.uid}:{key.attempt}:{key.unit}"
