"""What a real API server adds: Kueue's trace through custom resources, and a cold start.

    python benchmarks/custom_resources.py trace [--policy fifo] [--share 1.0]
    python benchmarks/custom_resources.py cold [--objects 5000]

etcd, kube-apiserver and its controllers, the control plane and the operator are processes of their
own on this machine, and its agents are played, as in `benchmarks/admissions.py`. It needs the
programs of `make kube-binaries`.

``trace`` creates the same 15,000 jobs as objects, each stream waiting for the answer to the object
before, and ends when the status of every object says that it succeeded. Target: 43 a second. (Kueue
itself took 488.5 s on a machine of this kind, 30.7 a second, where the API server was the limit.)

``cold`` creates objects while no operator runs, and starts one: until every object has a status.
Targets: 60 s for 5,000 objects, and less than 200 MB.
"""

import argparse
import asyncio
import json
import re
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import psutil
from kubernetes.aio import client, config

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._processes import ROOT, Child, a_folder, control_plane, machine, serving
from benchmarks.admissions import (
    COHORTS,
    QUEUES_A_COHORT,
    SIZES,
    PlayedAgent,
    Size,
    Told,
    figures,
    manifest,
    prepare,
    show,
)
from headrace.api.generated import admin_pb2_grpc
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.control_plane import local_cluster

NAMESPACE = "default"
CRDS = ROOT / "deploy" / "helm" / "headrace" / "files" / "crds"
COLLECTION = ("headrace.dev", "v1alpha1", NAMESPACE, "trainingjobs")
_PATIENCE_SECONDS = 1800.0


@dataclass
class Seen:
    """What the objects' statuses say, as a watch tells; monotonic seconds.

    Attributes:
        told: Objects that have a status.
        succeeded: When an object said that it succeeded.
    """

    told: set[str] = field(default_factory=set)
    succeeded: dict[str, float] = field(default_factory=dict)


@contextmanager
def kubernetes() -> Iterator[ApiServer]:
    """With our kinds."""
    with local_cluster() as server:
        server.kubectl("apply", "--server-side", "-f", str(CRDS))
        server.kubectl("wait", "--for=condition=Established", "-f", str(CRDS))
        yield server


@contextmanager
def operating(server: ApiServer, plane: Child) -> Iterator[Child]:
    """An operator between the two."""
    flags = (
        *("--control-plane", plane.address, "--kubeconfig", str(server.kubeconfig)),
        *("--namespaces", NAMESPACE, "--cluster-objects", "no"),
        *("--lease-namespace", NAMESPACE, "--lease-seconds", "15", "--listen", "127.0.0.1:0"),
    )
    with serving("-m", "operators", *flags) as child:
        yield child


@asynccontextmanager
async def objects_of(server: ApiServer) -> AsyncIterator[client.CustomObjectsApi]:
    """The API of custom resources, with as many connections as there are streams."""
    settings = client.Configuration()
    await config.load_kube_config(str(server.kubeconfig), client_configuration=settings)
    settings.connection_pool_maxsize = 200
    async with client.ApiClient(settings) as api:
        yield client.CustomObjectsApi(api)


async def watch(api: client.CustomObjectsApi, seen: Seen) -> None:
    """Takes down what statuses say, until it is cancelled; a watch that ends is begun anew."""
    group, version, namespace, plural = COLLECTION
    while True:
        listed: Any = await api.list_namespaced_custom_object(*COLLECTION)
        for each in listed["items"]:
            take(each, seen)
        session, host = api.api_client.rest_client.pool_manager, api.api_client.configuration.host
        address = f"{host}/apis/{group}/{version}/namespaces/{namespace}/{plural}"
        since = listed["metadata"]["resourceVersion"]
        asked = {"watch": "true", "timeoutSeconds": "20", "resourceVersion": since}
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(address, params=asked, read_bufsize=1 << 22) as lines:
                async for line in lines.content:
                    take(json.loads(line)["object"], seen)


def take(document: dict[str, Any], seen: Seen) -> None:
    """What one object's status says."""
    name, status = document["metadata"].get("name", ""), document.get("status")
    if not name or not isinstance(status, dict):
        return
    seen.told.add(name)
    for each in status.get("conditions", ()):
        if each["type"] == "Succeeded" and each["status"] == "True":
            seen.succeeded.setdefault(name, time.monotonic())


async def create(
    api: client.CustomObjectsApi, cohort: int, queue: int, size: Size, told: Told, share: float
) -> None:
    """One class of one queue, one object after the other."""
    began = time.monotonic()
    for number in range(round(size.count * share)):
        await asyncio.sleep(max(0.0, began + number * size.every - time.monotonic()))
        name = f"{size.name}-{cohort}-{queue}-{number}"
        told.size[name] = size
        told.submitted[name] = time.monotonic()
        text = manifest(name, f"queue-{cohort}-{queue}", f"cohort-{cohort}", size)
        await api.create_namespaced_custom_object(*COLLECTION, body=json.loads(text))


async def trace(server: ApiServer, plane: Child, operator: Child, given: Any) -> None:
    """The whole trace."""
    told, seen = Told(), Seen()
    async with grpc.aio.insecure_channel(plane.address) as channel, objects_of(server) as api:
        admin = admin_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call]
        await prepare(admin, given.policy)
        players = [
            asyncio.create_task(PlayedAgent(f"cohort-{each}", channel, told, instant=False).run())
            for each in range(COHORTS)
        ]
        players.append(asyncio.create_task(watch(api, seen)))
        before, began = plane.cpu_seconds(), time.monotonic()
        spent = cpu_by_program()
        await asyncio.gather(
            *(
                create(api, cohort, queue, size, told, given.share)
                for cohort in range(COHORTS)
                for queue in range(QUEUES_A_COHORT)
                for size in SIZES
            )
        )
        created = time.monotonic() - began
        await until(lambda: len(seen.succeeded) >= len(told.submitted), players, operator)
        wall = time.monotonic() - began
        for each in players:
            each.cancel()
    show([figures(told, given.policy, wall, created, plane, plane.cpu_seconds() - before)], False)
    writes = requests_of(operator)
    jobs = len(told.submitted)
    print(f"writes of the operator a job: {sum(writes.values()) / jobs:.2f} ({told_of(writes)})")
    print(f"largest memory of the operator: {peak_mb(operator):.0f} MB")
    after = cpu_by_program()
    cpu = {name: (after[name] - spent.get(name, 0.0)) / jobs * 1000 for name in after}
    print("CPU a job, ms: " + ", ".join(f"{name} {each:.1f}" for name, each in cpu.items()))


async def cold(server: ApiServer, plane: Child, given: Any) -> None:
    """Objects first, then the operator."""
    async with objects_of(server) as api:
        gate = asyncio.Semaphore(50)

        async def one(number: int) -> None:
            text = manifest(f"job-{number}", "default", "cohort-0", SIZES[0])
            async with gate:
                await api.create_namespaced_custom_object(*COLLECTION, body=json.loads(text))

        began = time.monotonic()
        await asyncio.gather(*(one(number) for number in range(given.objects)))
        print(f"{given.objects} objects created in {time.monotonic() - began:.1f} s", flush=True)
        seen = Seen()
        player = asyncio.create_task(watch(api, seen))
        began = time.monotonic()
        with operating(server, plane) as operator:
            await until(lambda: len(seen.told) >= given.objects, [player], operator)
            print(f"every one has a status after {time.monotonic() - began:.1f} s (target 60)")
            print(f"largest memory of the operator: {peak_mb(operator):.0f} MB (target 200)")
            print(f"writes of the operator: {told_of(requests_of(operator))}")
        player.cancel()


async def until(holds: Any, players: list[asyncio.Task[None]], operator: Child) -> None:
    """Until it holds."""
    deadline, next_word = time.monotonic() + _PATIENCE_SECONDS, time.monotonic() + 30.0
    while not holds():
        for each in players:
            if each.done():
                each.result()
        if operator.process.poll() is not None:
            raise SystemExit(f"the operator ended with {operator.process.returncode}")
        if time.monotonic() > deadline:
            raise SystemExit("that took too long")
        if time.monotonic() > next_word:
            print("  waiting ...", flush=True)
            next_word += 30.0
        await asyncio.sleep(0.1)


def requests_of(operator: Child) -> dict[str, int]:
    """How often the operator wrote to the API server, by verb."""
    with urllib.request.urlopen(f"http://{operator.told['http']}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    found: dict[str, int] = {}
    for line in lines:
        match = re.match(r"headrace_operator_\w*requests\w*_total\{(.*)\} ([\d.e+]+)", line)
        verb = re.search(r'verb="(\w+)"', match[1]) if match else None
        if match and verb and verb[1].lower() not in ("get", "list", "watch"):
            found[verb[1]] = found.get(verb[1], 0) + int(float(match[2]))
    return found


def told_of(writes: dict[str, int]) -> str:
    """The same in words."""
    return ", ".join(f"{verb} {count}" for verb, count in sorted(writes.items())) or "none told"


def peak_mb(child: Child) -> float:
    """Largest memory of a process, in units of 10^6 bytes."""
    status = Path(f"/proc/{child.process.pid}/status").read_text()
    (line,) = (each for each in status.splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def cpu_by_program() -> dict[str, float]:
    """CPU time of the programs of Kubernetes, and of ours."""
    found: dict[str, float] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            times, line = process.cpu_times(), process.cmdline()
        except psutil.Error:
            continue
        name = line[2] if line[1:2] == ["-m"] else Path(line[0]).name if line else ""
        found[name] = found.get(name, 0.0) + times.user + times.system
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    commands = parser.add_subparsers(dest="command", required=True)
    tracing = commands.add_parser("trace")
    tracing.add_argument("--policy", default="fifo")
    tracing.add_argument("--share", type=float, default=1.0)
    starting = commands.add_parser("cold")
    starting.add_argument("--objects", type=int, default=5000)
    given = parser.parse_args()
    print(machine(), flush=True)
    with kubernetes() as server, a_folder() as folder, control_plane(folder) as plane:
        if given.command == "cold":
            asyncio.run(cold(server, plane, given))
        else:
            with operating(server, plane) as operator:
                asyncio.run(trace(server, plane, operator, given))
    return 0


if __name__ == "__main__":
    sys.exit(main())
