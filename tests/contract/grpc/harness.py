"""A control plane on a loopback port with a store of its own, and an agent that tests play."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2

from controlplane.config import ServeSettings, Tls
from controlplane.main import ControlPlane, running
from headrace.api.generated import (
    admin_pb2,
    admin_pb2_grpc,
    common_pb2,
    jobs_pb2,
    jobs_pb2_grpc,
    nodes_pb2,
    nodes_pb2_grpc,
)

T = TypeVar("T")
PATIENCE_SECONDS = 60.0
"""How long a condition may take on a machine that does much else."""


def run(test: Coroutine[Any, Any, T]) -> T:
    """Runs one test's coroutine, with a limit."""

    async def limited() -> T:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await test

    return asyncio.run(limited())


async def eventually(holds: Callable[[], Coroutine[Any, Any, T | None]]) -> T:
    """Asks again and again until the answer is not None or false."""
    while True:
        answer = await holds()
        if answer:
            return answer
        await asyncio.sleep(0.02)


def manifest(name: str = "train", **spec: Any) -> dict[str, Any]:
    """A manifest of an elastic job; ``spec`` replaces parts of its spec."""
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {
            "accelerators": {"minimum": 1, "maximum": 2},
            "model": {"name": "gpt2", "preset": "tiny"},
            "data": {"source": "python-stdlib"},
            "training": {"globalBatchSize": 8, "steps": 100},
            "checkpoint": {"store": "/checkpoints"},
            **spec,
        },
    }


def a_request(name: str = "train", **spec: Any) -> jobs_pb2.SubmitJobRequest:
    """A submission from the command line."""
    return jobs_pb2.SubmitJobRequest(manifest_json=json.dumps(manifest(name, **spec)))


def violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """Fields that an error names, with what is wrong."""
    found: dict[str, str] = {}
    metadata: Any = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                bad = error_details_pb2.BadRequest()
                if detail.Unpack(bad):
                    found.update({v.field: v.description for v in bad.field_violations})
    return found


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    """The error of a call that must not succeed."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"wanted a refusal, got {answer}")


async def refused_stream(call: Any) -> grpc.aio.AioRpcError:
    """The error that a stream ends with."""
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("wanted a refusal, the stream ended well")


@dataclass(slots=True)
class Api:
    """The services of one control plane, over one channel."""

    plane: ControlPlane
    channel: grpc.aio.Channel
    jobs: Any
    nodes: Any
    admin: Any

    async def be_patient(self) -> None:
        """Nodes that a test plays may be silent for longer than real ones, on a slow machine. And
        the policy is one that asks nobody how fast those are.
        """
        settings = {"node_grace_seconds": "600", "recovery_grace_seconds": "600"}
        settings["policy"] = "equal-share"
        await self.admin.SetPolicy(admin_pb2.SetPolicyRequest(settings=settings))

    async def submit(self, name: str = "train", **spec: Any) -> jobs_pb2.SubmitJobResponse:
        """Submits a job."""
        answer: jobs_pb2.SubmitJobResponse = await self.jobs.SubmitJob(a_request(name, **spec))
        return answer

    async def job(self, uid: str) -> jobs_pb2.Job:
        """The job as it is now."""
        request = jobs_pb2.GetJobRequest(selector=jobs_pb2.JobSelector(uid=uid))
        job: jobs_pb2.Job = (await self.jobs.GetJob(request)).job
        return job

    async def until_step(self, uid: str, step: int) -> jobs_pb2.Job:
        """The job, once it runs and has reported that step."""

        async def there() -> jobs_pb2.Job | None:
            job = await self.job(uid)
            runs = job.status.stage == "Running"
            return job if runs and job.status.progress.step >= step else None

        return await eventually(there)

    async def until_stage(self, uid: str, stage: str) -> jobs_pb2.Job:
        """The job, once it is there."""

        async def there() -> jobs_pb2.Job | None:
            job = await self.job(uid)
            return job if job.status.stage == stage else None

        return await eventually(there)


def over(plane: ControlPlane, channel: grpc.aio.Channel) -> Api:
    """The services over a channel."""
    return Api(
        plane,
        channel,
        jobs_pb2_grpc.JobServiceStub(channel),  # type: ignore[no-untyped-call]
        nodes_pb2_grpc.NodeServiceStub(channel),  # type: ignore[no-untyped-call]
        admin_pb2_grpc.AdminServiceStub(channel),  # type: ignore[no-untyped-call]
    )


def settings(folder: Path, tls: Tls | None = None, **changes: Any) -> ServeSettings:
    """A control plane on free ports with its store in ``folder``."""
    fresh = ServeSettings(
        listen="127.0.0.1:0",
        metrics_listen="127.0.0.1:0",
        database_url=f"sqlite:///{folder / 'headrace.db'}",
        holder="test",
        tls=tls,
    )
    return replace(fresh, **changes)


@asynccontextmanager
async def an_api(folder: Path, **changes: Any) -> AsyncIterator[Api]:
    """A control plane that decides, and its services."""
    async with (
        running(settings(folder, **changes)) as plane,
        grpc.aio.insecure_channel(plane.address) as channel,
    ):
        api = over(plane, channel)
        await api.be_patient()
        yield api


class Agent:
    """One node's agent, played by a test: it obeys and says what a real one would."""

    def __init__(
        self,
        api: Api,
        node: str = "node-a",
        slots: int = 2,
        agent_id: str = "",
        **accelerator: Any,
    ) -> None:
        """``accelerator`` is what its accelerators are beyond CPU slots."""
        self.api = api
        self._accelerator = {"type": "cpu", **accelerator}
        self.node = node
        self.agent_id = agent_id
        self.slots = [f"slot-{number}" for number in range(slots)]
        self.term = 0
        self._watching: Any = None

    async def register(self, **more: Any) -> nodes_pb2.RegisterNodeResponse:
        """Introduces the node."""
        answer: nodes_pb2.RegisterNodeResponse = await self.api.nodes.RegisterNode(
            nodes_pb2.RegisterNodeRequest(
                node=nodes_pb2.Node(
                    name=self.node,
                    address="127.0.0.1",
                    accelerators=[
                        nodes_pb2.Accelerator(id=slot, cpu_cores=[number], **self._accelerator)
                        for number, slot in enumerate(self.slots)
                    ],
                ),
                agent_id=self.agent_id,
                **more,
            )
        )
        self.term = answer.term
        return answer

    def watch(self) -> Any:
        """The stream of the node's assignments."""
        return self.api.nodes.WatchAssignments(
            nodes_pb2.WatchAssignmentsRequest(node=self.node, agent_id=self.agent_id)
        )

    async def assigned(
        self, holds: Callable[[nodes_pb2.WatchAssignmentsResponse], bool]
    ) -> nodes_pb2.WatchAssignmentsResponse:
        """The first assignment that is as wanted."""
        stream = self.watch()
        try:
            async for assignment in stream:
                if holds(assignment):
                    return assignment  # type: ignore[no-any-return]
        finally:
            stream.cancel()
        raise AssertionError("the stream of assignments ended")

    async def report(self, **events: Any) -> nodes_pb2.ReportResponse:
        """Says what happened."""
        answer: nodes_pb2.ReportResponse = await self.api.nodes.Report(
            nodes_pb2.ReportRequest(node=self.node, agent_id=self.agent_id, **events)
        )
        return answer

    async def started(self, launch: nodes_pb2.Launch) -> None:
        """All units of a launch are up and meet."""
        await self.report(
            rendezvous=[
                nodes_pb2.RendezvousBound(
                    uid=launch.uid, attempt=launch.attempt, address="127.0.0.1:4000"
                )
            ],
            started=[
                nodes_pb2.UnitStarted(uid=launch.uid, attempt=launch.attempt, unit=unit.index)
                for unit in launch.units
            ],
        )

    async def progressed(self, launch: nodes_pb2.Launch, step: int, loss: float) -> None:
        """A step was done."""
        await self.report(
            progress=[
                nodes_pb2.ProgressReport(
                    uid=launch.uid,
                    attempt=launch.attempt,
                    progress=common_pb2.Progress(
                        step=step, checkpoint_step=step, loss=loss, step_seconds=0.1
                    ),
                    losses=[nodes_pb2.StepLoss(step=step, loss=loss)],
                )
            ]
        )

    async def exited(
        self, launch: nodes_pb2.Launch, outcome: str, step: int = 0, reason: str = ""
    ) -> None:
        """All units of a launch ended."""
        await self.report(
            exited=[
                nodes_pb2.UnitExited(
                    uid=launch.uid,
                    attempt=launch.attempt,
                    unit=unit.index,
                    outcome=outcome,
                    step=step,
                    reason=common_pb2.Reason(code=reason) if reason else None,
                )
                for unit in launch.units
            ]
        )


def launches(assignment: nodes_pb2.WatchAssignmentsResponse) -> bool:
    """Whether something shall run."""
    return bool(assignment.launches)
