"""The operator and the control plane as real processes, and one node that a test plays."""

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from headrace.api.generated import jobs_pb2, nodes_pb2
from tests.architecture.source_tree import ROOT
from tests.contract.grpc.harness import Agent, Api, over
from tests.kubernetes.api_server import ApiServer

T = TypeVar("T")
GROUP, VERSION, PLURAL = "headrace.dev", "v1alpha1", "trainingjobs"
PATIENCE_SECONDS = 90.0
"""How long anything may take on a loaded machine before it counts as never."""
LEASE_SECONDS = 15
"""Long, so that nobody loses it for want of a processor; who is started again takes it at once."""

Document = dict[str, Any]


def run(test: Coroutine[Any, Any, T]) -> T:
    """Runs one test's coroutine, with a limit."""

    async def limited() -> T:
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            return await test

    return asyncio.run(limited())


async def eventually(what: str, holds: Callable[[], Any]) -> Any:
    """Asks again and again until the answer, which may have to be awaited, is not None or false."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_SECONDS
    while True:
        answer = holds()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        if loop.time() > deadline:
            raise AssertionError(f"after {PATIENCE_SECONDS:g} s it is still not true that {what}")
        await asyncio.sleep(0.05)  # between two looks at another process


@dataclass(slots=True)
class Process:
    """A process of ours.

    Attributes:
        process: The process.
        told: What it said when it was ready.
        log: Where it logs.
    """

    process: asyncio.subprocess.Process
    told: Document
    log: Path

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    async def ends(self) -> int:
        """Its exit code."""
        return await self.process.wait()

    def page(self, path: str) -> str:
        """What it shows over HTTP."""
        with urllib.request.urlopen(f"http://{self.told['http']}{path}", timeout=30) as answer:
            return str(answer.read().decode())


async def start(module: str, log: Path, *flags: str) -> Process:
    """Starts ``python -m module`` and waits until it says that it is ready."""
    with log.open("ab") as stream:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *flags,
            stdout=asyncio.subprocess.PIPE,
            stderr=stream,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        await process.wait()
        raise AssertionError(f"{module} did not start; see {log}")
    return Process(process, json.loads(line), log)


async def end(process: Process) -> None:
    """Ends it, whatever state it is in."""
    if process.process.returncode is None:
        with suppress(ProcessLookupError):
            process.process.kill()
    await process.process.wait()
    transport = getattr(process.process, "_transport", None)
    if transport is not None:
        transport.close()


@dataclass
class Stage:
    """One namespace with a control plane and as many operators as a test wants.

    Attributes:
        kubernetes: The API server.
        namespace: The test's own.
        folder: For logs and stores.
        plane: The control plane's process.
        api: Its services.
        operators: Running, in the order of their start.
    """

    kubernetes: ApiServer
    namespace: str
    folder: Path
    plane: Process
    api: Api
    operators: list[Process] = field(default_factory=list)
    _started: int = 0

    @property
    def objects(self) -> client.CustomObjectsApi:
        """Custom resources, by the official client."""
        return client.CustomObjectsApi(self.kubernetes.client)

    async def operator(
        self, *, identity: str = "", kubeconfig: Path | None = None, flags: tuple[str, ...] = ()
    ) -> Process:
        """Starts a replica of the operator."""
        self._started += 1
        name = identity or f"replica-{self._started}"
        process = await start(
            "operators",
            self.folder / f"operator-{name}.log",
            *("--control-plane", self.plane.told["grpc"]),
            *("--kubeconfig", str(kubeconfig or self.kubernetes.kubeconfig)),
            *("--namespaces", self.namespace, "--cluster-objects", "no"),
            *("--nodes", "no"),
            *("--lease-namespace", "default", "--lease-name", self.namespace),
            *("--lease-seconds", str(LEASE_SECONDS), "--identity", name),
            *("--listen", "127.0.0.1:0"),
            *flags,
        )
        self.operators.append(process)
        return process

    # Objects.

    def create(self, name: str, **spec: Any) -> Document:
        """Makes a job's object."""
        return self._of(
            self.objects.create_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, manifest(name, **spec)
            )
        )

    def patch(self, name: str, change: Document) -> Document:
        """Merges a change into an object."""
        return self._of(
            self.objects.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                self.namespace,
                PLURAL,
                name,
                change,
                _content_type="application/merge-patch+json",
            )
        )

    def patch_status(self, name: str, change: Document) -> Document:
        """Merges a change into an object's status."""
        return self._of(
            self.objects.patch_namespaced_custom_object_status(
                GROUP,
                VERSION,
                self.namespace,
                PLURAL,
                name,
                change,
                _content_type="application/merge-patch+json",
            )
        )

    def delete(self, name: str) -> None:
        """Asks that an object goes."""
        self.objects.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name)

    def find(self, name: str) -> Document | None:
        """An object; None if there is none."""
        try:
            return self._of(
                self.objects.get_namespaced_custom_object(
                    GROUP, VERSION, self.namespace, PLURAL, name
                )
            )
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def all(self) -> list[Document]:
        """Every object."""
        found = self.objects.list_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL)
        return list(self._of(found)["items"])

    @staticmethod
    def _of(answer: Any) -> Document:
        return dict(answer)

    async def condition(self, name: str, kind: str, status: str, reason: str = "") -> Document:
        """The object, once one of its conditions is so."""

        def there() -> Document | None:
            found = self.find(name)
            told = condition(found, kind)
            right = told.get("status") == status and told.get("reason") in (
                {reason} if reason else {told.get("reason")}
            )
            return found if right else None

        found: Document = await eventually(f"{name} is {kind}={status} {reason}", there)
        return found

    async def gone(self, name: str) -> None:
        """Returns when there is no object of that name."""
        await eventually(f"{name} is gone", lambda: self.find(name) is None)

    def events(self) -> list[client.EventsV1Event]:
        """Events of the namespace, oldest first."""
        found = client.EventsV1Api(self.kubernetes.client).list_namespaced_event(self.namespace)
        return sorted(found.items, key=lambda each: each.event_time or 0)

    # Jobs.

    async def jobs(self) -> list[jobs_pb2.Job]:
        """Every job of the control plane."""
        answer = await self.api.jobs.ListJobs(jobs_pb2.ListJobsRequest(page_size=1000))
        return list(answer.jobs)

    async def no_jobs(self) -> None:
        """Returns when the control plane has forgotten every job."""

        async def none() -> bool:
            return not await self.jobs()

        await eventually("every job is forgotten", none)

    async def job(self, uid: str) -> jobs_pb2.Job | None:
        """The job of that uid."""
        return next((job for job in await self.jobs() if job.uid == uid), None)


def manifest(name: str, **spec: Any) -> Document:
    """A job's object; ``spec`` replaces parts of its spec."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {
            "accelerators": {"minimum": 1},
            "model": {"name": "gpt2", "preset": "tiny"},
            "data": {"source": "python-stdlib"},
            "training": {"globalBatchSize": 8, "steps": 100},
            "checkpoint": {"store": "/checkpoints"},
            **spec,
        },
    }


def condition(found: Document | None, kind: str) -> Document:
    """A condition of an object; empty if it has none of that type."""
    conditions = (found or {}).get("status", {}).get("conditions", ())
    return next((dict(each) for each in conditions if each["type"] == kind), {})


@asynccontextmanager
async def a_stage(kubernetes: ApiServer, namespace: str, folder: Path) -> AsyncIterator[Stage]:
    """A control plane that decides, and no operator yet."""
    plane = await start_control_plane(folder)
    try:
        async with grpc.aio.insecure_channel(plane.told["grpc"]) as channel:
            stage = Stage(kubernetes, namespace, folder, plane, over(None, channel))  # type: ignore[arg-type]
            await stage.api.be_patient()
            try:
                yield stage
            finally:
                for operator in stage.operators:
                    await end(operator)
                release_objects(stage)
    finally:
        await end(plane)


async def start_control_plane(
    folder: Path, listen: str = "127.0.0.1:0", *, flags: tuple[str, ...] = ()
) -> Process:
    """Starts it on the store in ``folder``."""
    return await start(
        "controlplane",
        folder / "control-plane.log",
        *("--listen", listen, "--metrics-listen", "none", "--holder", "test"),
        *("--database-url", f"sqlite:///{folder / 'headrace.db'}"),
        *flags,
    )


def release_objects(stage: Stage) -> None:
    """Nobody is there any more to let them go, and their namespace would stay."""
    for found in stage.all():
        if found["metadata"].get("finalizers"):
            with suppress(ApiException):
                stage.patch(found["metadata"]["name"], {"metadata": {"finalizers": None}})


class Node:
    """A node whose agent obeys at once: units start, train as far as they are let, and stop."""

    def __init__(self, stage: Stage, slots: int = 2, finish: bool = True) -> None:
        """``finish``: whether jobs run to their end by themselves."""
        self._agent = Agent(stage.api, slots=slots)
        self._finish = finish
        self._running: dict[tuple[str, int], nodes_pb2.Launch] = {}
        self._ended: set[tuple[str, int]] = set()
        self.starts: list[tuple[str, int]] = []
        """Uid and attempt of each start that was ordered."""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Node":
        await self._agent.register()
        self._task = asyncio.create_task(self._obey())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _obey(self) -> None:
        stream = self._agent.watch()
        try:
            async for assignment in stream:
                for launch in assignment.launches:
                    await self._obey_one(launch)
        finally:
            stream.cancel()

    async def _obey_one(self, launch: nodes_pb2.Launch) -> None:
        key = (launch.uid, launch.attempt)
        if key in self._ended:
            return
        if launch.intent == nodes_pb2.Launch.INTENT_RUN:
            if key not in self._running:
                self.starts.append(key)
                self._running[key] = launch
                await self._agent.started(launch)
                await self._agent.progressed(launch, 10, 2.0)
                if self._finish:
                    await self.finish(launch.uid)
        else:
            await self._exit(key, "Stopped")

    async def finish(self, uid: str) -> None:
        """Has the present attempt of a job do all its steps."""
        key = next(key for key in self._running if key[0] == uid)
        await self._exit(key, "Succeeded", 100)

    async def _exit(self, key: tuple[str, int], outcome: str, step: int = 10) -> None:
        launch = self._running.pop(key, None)
        if launch is not None:
            self._ended.add(key)
            await self._agent.exited(launch, outcome, step)

    async def progress(self, uid: str, step: int) -> None:
        """Has a job do some steps."""
        launch = next(self._running[key] for key in self._running if key[0] == uid)
        await self._agent.progressed(launch, step, 1.5)


def kubeconfig_to(kubernetes: ApiServer, address: str, folder: Path) -> Path:
    """A kubeconfig for a proxy in front of the API server, without TLS."""
    file = folder / f"to-{address.rpartition(':')[2]}.kubeconfig"
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": f"http://{address}"}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return file
