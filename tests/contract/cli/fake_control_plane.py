"""A control plane of the API's own type with canned state, for the command line to talk to."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from headrace.api.generated import (
    admin_pb2,
    admin_pb2_grpc,
    common_pb2,
    jobs_pb2,
    jobs_pb2_grpc,
    nodes_pb2,
)
from headrace.api.manifest import TrainingJob, canonical_json, parse
from headrace.api.runtime import refusals

STARTED = Timestamp(seconds=1_790_000_000)
STARTED_BECAUSE = "4 were free, which is all that it can use, and on one node, as it wishes"
Watch = jobs_pb2.WatchJobsResponse


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    """A small valid manifest; ``spec`` replaces parts of its spec."""
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {
            "accelerators": {"minimum": 1, "maximum": 4},
            "model": {"name": "gpt2"},
            "data": {"source": "python-stdlib"},
            "training": {"globalBatchSize": 16, "steps": 400},
            "checkpoint": {"store": "/checkpoints"},
            **spec,
        },
    }


class FakeControlPlane(jobs_pb2_grpc.JobServiceServicer, admin_pb2_grpc.AdminServiceServicer):
    """Keeps jobs, nodes and queues in memory; remembers what it was asked for.

    Attributes:
        output: What a rank has written, by (attempt, unit): pieces, each sent as one message.
        log_breaks: How often a followed log stream is cut after its first piece.
        tells_the_end: Whether a log stream closes with a note.
        unavailable: How many unary calls are answered with ``away`` first.
        away: What a control plane answers that is not there for long.
        oldest: Oldest version that a watch can be resumed from.
        watch_breaks: How many watches end with UNAVAILABLE once they have told what is there.
        refuse: A sentence with which every change is refused for want of rights.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, jobs_pb2.Job] = {}
        self.nodes: list[admin_pb2.NodeStatus] = []
        self.switch_prices: list[admin_pb2.SwitchPrice] = []
        self.fits: list[admin_pb2.Fit] = []
        self.outcomes: list[admin_pb2.ForecastOutcome] = []
        self.imported = admin_pb2.ImportMeasurementsResponse()
        self.observations: list[admin_pb2.Observation] = []
        self.queues: dict[str, common_pb2.Queue] = {"default": common_pb2.Queue(name="default")}
        self.settings = {"policy": '"equal-share"', "period_seconds": "5.0"}
        self.descriptions = [
            admin_pb2.SettingDescription(
                name="period_seconds",
                default_value="5.0",
                lowest=0.05,
                highest=3600,
                meaning="Longest time between two decisions.",
            ),
        ]
        self.policy_versions: list[admin_pb2.PolicyVersion] = []
        self.tried = admin_pb2.TryPolicyResponse()
        self.queue_warnings: list[str] = []
        self.events: list[jobs_pb2.LoggedEvent] = []
        self.output: dict[tuple[int, int], list[bytes]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.log_breaks = 0
        self.tells_the_end = True
        self.unavailable = 0
        self.away = grpc.StatusCode.UNAVAILABLE
        self.oldest = 0
        self.watch_breaks = 0
        self.refuse = ""
        self.because = "4 wanted, 1 free"
        self._changed = threading.Condition()
        self._version = 1
        self._log: list[Watch] = []
        self._ending = False
        self._server = grpc.server(ThreadPoolExecutor(16))
        jobs_pb2_grpc.add_JobServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        """Ends the service."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._server.stop(None).wait()

    # What tests arrange.

    def put(self, name: str, stage: str = "Running", **fields: Any) -> jobs_pb2.Job:
        """Puts a job there, or changes it, and tells watchers."""
        uid = f"uid-{name}"
        job = jobs_pb2.Job(
            uid=uid,
            namespace=fields.pop("namespace", "default"),
            name=name,
            generation=1,
            owner="ControlPlane",
            queue=fields.pop("queue", "default"),
            manifest_json=fields.pop("manifest_json", None) or as_canonical(manifest(name)),
            submitted_at=STARTED,
            submitter="anonymous",
        )
        job.status.CopyFrom(jobs_pb2.JobStatus(stage=stage, **fields))
        with self._changed:
            self.jobs[uid] = job
            self._tell(Watch.KIND_PRESENT, job)
        return job

    def forget(self, uid: str) -> None:
        """Drops a job and tells watchers."""
        with self._changed:
            self._tell(Watch.KIND_GONE, self.jobs.pop(uid))

    def _tell(self, kind: Any, job: jobs_pb2.Job) -> None:
        self._version += 1
        self._log.append(Watch(kind=kind, job=job, version=self._version))
        self._changed.notify_all()

    # The API.

    def _enter(self, call: str, request: Any, context: grpc.ServicerContext) -> None:
        self.asked.append((call, request))
        if self.unavailable:
            self.unavailable -= 1
            context.abort(self.away, "just restarting")

    def SubmitJob(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("SubmitJob", request, context)
        if self.refuse:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, self.refuse)
        found = parse(json.loads(request.manifest_json))
        problems = found if isinstance(found, tuple) else refusals(found)
        if problems:
            _abort_invalid(context, [(each.field, each.message) for each in problems])
        assert isinstance(found, TrainingJob)
        uid = f"uid-{found.metadata.name}"
        known = self.jobs.get(uid)
        result = "created"
        if known is not None:
            result = "unchanged" if known.manifest_json == request.manifest_json else "updated"
        if not request.dry_run and result != "unchanged":
            self.put(found.metadata.name, "Queued", manifest_json=request.manifest_json)
        return jobs_pb2.SubmitJobResponse(uid=uid, generation=1, result=result)

    def WithdrawJob(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("WithdrawJob", request, context)
        if request.uid in self.jobs:
            self.forget(request.uid)
        return jobs_pb2.WithdrawJobResponse()

    def _selected(self, selector: Any) -> list[jobs_pb2.Job]:
        return [
            job
            for job in self.jobs.values()
            if all(
                getattr(selector, field) in ("", getattr(job, field))
                for field in ("namespace", "name", "uid", "queue")
            )
        ]

    def GetJob(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("GetJob", request, context)
        found = self._selected(request.selector)
        if not found:
            name = f"{request.selector.namespace}/{request.selector.name}"
            told = f"no job {name!r}; `headrace get jobs` lists all"
            context.abort(grpc.StatusCode.NOT_FOUND, told)
        return jobs_pb2.GetJobResponse(job=found[0])

    def ListJobs(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Pages of two, so that every list of more is paged."""
        self._enter("ListJobs", request, context)
        found = self._selected(request.selector)
        start = int(request.page_token or 0)
        more = str(start + 2) if len(found) > start + 2 else ""
        return jobs_pb2.ListJobsResponse(
            jobs=found[start : start + 2], next_page_token=more, version=self._version
        )

    def WatchJobs(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        self.asked.append(("WatchJobs", request))
        if 0 < request.after_version < self.oldest:
            context.abort(grpc.StatusCode.OUT_OF_RANGE, "watch again from version 0")
        with self._changed:
            told = len(self._log)
            present, version = self._selected(request.selector), self._version
        if not request.after_version:
            for job in present:
                yield Watch(kind=Watch.KIND_PRESENT, job=job, version=version)
        yield Watch(kind=Watch.KIND_SYNCED, version=version)
        if self.watch_breaks:
            self.watch_breaks -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        wanted = request.selector.uid
        while not self._ending and context.is_active():
            with self._changed:
                if len(self._log) == told and not self._ending:
                    self._changed.wait(0.2)
                new, told = self._log[told:], len(self._log)
            yield from (each for each in new if wanted in ("", each.job.uid))

    def StreamLogs(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        self.asked.append(("StreamLogs", request))
        job = self.jobs[request.uid]
        attempt = request.attempt or job.status.attempt
        pieces = self.output.get((attempt, request.unit), [])
        for number, piece in enumerate(pieces):
            yield jobs_pb2.StreamLogsResponse(data=piece, attempt=attempt, unit=request.unit)
            if request.follow and number == 0 and self.log_breaks:
                self.log_breaks -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        if self.tells_the_end:
            yield jobs_pb2.StreamLogsResponse(note=f"attempt {attempt} has ended")

    def ListEvents(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("ListEvents", request, context)
        found = [
            event
            for event in self.events
            if event.sequence > request.after_sequence and request.uid in ("", event.uid)
        ]
        return jobs_pb2.ListEventsResponse(
            events=found[:2], next_after_sequence=found[1].sequence if len(found) > 2 else 0
        )

    def GetCluster(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("GetCluster", request, context)
        return admin_pb2.GetClusterResponse(
            version="0.1.0",
            term=3,
            state="deciding",
            policy="equal-share",
            last_sequence=9,
            accelerators_total=4,
            accelerators_held=2,
            dashboard_url="http://127.0.0.1:8265",
        )

    def ListNodes(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("ListNodes", request, context)
        return admin_pb2.ListNodesResponse(nodes=self.nodes)

    def ListObservations(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("ListObservations", request, context)
        return admin_pb2.ListObservationsResponse(observations=self.observations)

    def ListFits(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("ListFits", request, context)
        return admin_pb2.ListFitsResponse(fits=self.fits)

    def ListForecastOutcomes(  # noqa: N802
        self, request: Any, context: grpc.ServicerContext
    ) -> Any:
        self._enter("ListForecastOutcomes", request, context)
        return admin_pb2.ListForecastOutcomesResponse(outcomes=self.outcomes)

    def ImportMeasurements(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("ImportMeasurements", request, context)
        return self.imported

    def ListSwitchPrices(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("ListSwitchPrices", request, context)
        return admin_pb2.ListSwitchPricesResponse(prices=self.switch_prices)

    def DrainNode(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("DrainNode", request, context)
        found = [status for status in self.nodes if status.node.name == request.node]
        if not found:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no node {request.node}")
        found[0].drained = request.drained
        closed = found[0].closed and not request.drained
        return admin_pb2.DrainNodeResponse(note="kubectl uncordon" if closed else "")

    def RemoveNode(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("RemoveNode", request, context)
        self.nodes = [each for each in self.nodes if each.node.name != request.node]
        return admin_pb2.RemoveNodeResponse()

    def PutQueue(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("PutQueue", request, context)
        self.queues[request.queue.name] = request.queue
        return admin_pb2.PutQueueResponse(queue=request.queue, warnings=self.queue_warnings)

    def DeleteQueue(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("DeleteQueue", request, context)
        if request.name not in self.queues:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no queue {request.name}")
        del self.queues[request.name]
        return admin_pb2.DeleteQueueResponse()

    def ListQueues(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("ListQueues", request, context)
        return admin_pb2.ListQueuesResponse(queues=self.queues.values())

    def GetPolicy(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("GetPolicy", request, context)
        return admin_pb2.GetPolicyResponse(
            settings=self.settings,
            policies=["equal-share", "fifo"],
            descriptions=self.descriptions,
            version=7,
        )

    def SetPolicy(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("SetPolicy", request, context)
        self.settings.update(request.settings)
        return admin_pb2.SetPolicyResponse(settings=self.settings)

    def TryPolicy(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("TryPolicy", request, context)
        return self.tried

    def ListPolicyVersions(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("ListPolicyVersions", request, context)
        return admin_pb2.ListPolicyVersionsResponse(versions=self.policy_versions)

    def RollBackPolicy(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("RollBackPolicy", request, context)
        return admin_pb2.RollBackPolicyResponse(version=8, changes=self.tried.changes)

    def Explain(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._enter("Explain", request, context)
        job = self.jobs[request.uid]
        return admin_pb2.ExplainResponse(
            stage=job.status.stage,
            reason=common_pb2.Reason(
                code="WaitingForAccelerators", message=self.because, wanted=4, available=1
            ),
            holders=[admin_pb2.Holder(uid="uid-b", namespace="default", name="b", accelerators=3)],
            decisions=[
                admin_pb2.ExplainedDecision(
                    sequence=7,
                    at=STARTED,
                    action="StartAttempt 1 dp4 on node-a",
                    reason=common_pb2.Reason(code="Started", message=STARTED_BECAUSE),
                )
            ],
            position=2,
        )

    def ExportSnapshot(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        for piece in (b'{"jobs":', b"{}}"):
            yield admin_pb2.ExportSnapshotResponse(data=piece)

    def Backup(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        yield admin_pb2.BackupResponse(data=b"first half, ")
        if self.refuse:
            context.abort(grpc.StatusCode.INTERNAL, self.refuse)
        yield admin_pb2.BackupResponse(data=b"second half")


def as_canonical(document: dict[str, Any]) -> str:
    """A valid manifest in canonical JSON."""
    found = parse(document)
    assert isinstance(found, TrainingJob), found
    return canonical_json(found)


def a_node(name: str, held: dict[str, str] | None = None) -> admin_pb2.NodeStatus:
    """A node with two slots."""
    return admin_pb2.NodeStatus(
        node=nodes_pb2.Node(
            name=name,
            accelerators=[
                nodes_pb2.Accelerator(id=f"{name}-slot-{number}", type="cpu") for number in (0, 1)
            ],
            labels={"zone": "a"},
            address="127.0.0.1",
            agent_version="0.1.0",
        ),
        contact="Online",
        holders=held or {},
        last_change_at=STARTED,
    )


def _abort_invalid(context: grpc.ServicerContext, problems: list[tuple[str, str]]) -> None:
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
        for field, description in problems
    ]
    packed = Packed()
    packed.Pack(error_details_pb2.BadRequest(field_violations=violations))
    context.abort_with_status(
        rpc_status.to_status(
            status_pb2.Status(
                code=code_pb2.INVALID_ARGUMENT,
                message="the manifest is not valid",
                details=[packed],
            )
        )
    )
