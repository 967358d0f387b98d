"""A synchronous client: one method a call, retried while that is harmless."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import grpc

from headrace.api.generated import (
    admin_pb2,
    admin_pb2_grpc,
    common_pb2,
    jobs_pb2,
    jobs_pb2_grpc,
)
from headrace.api.keepalive import pings
from headrace.api.replicas import BY_NAME, who_decides
from headrace.client.context import Context
from headrace.client.trouble import CallError, Kind, explained

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_CALL_SECONDS = 15.0
_PAGE = 500
_LARGEST_MESSAGE_BYTES = 64 * 2**20


class Client:
    """Speaks to one control plane. Use it as a context manager."""

    def __init__(
        self,
        context: Context,
        *,
        patience_seconds: float = 5.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Opens no connection yet; the first call does.

        Args:
            context: Where it is.
            patience_seconds: How long an unreachable control plane is tried again.
            pause: Waits between two tries.
        """
        self.context = context
        self.patience_seconds = patience_seconds
        self._pause = pause
        self._closed = False
        self._channel = _channel(context)
        self.jobs = jobs_pb2_grpc.JobServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self.admin = admin_pb2_grpc.AdminServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all calls and the connection."""
        self._closed = True
        self._channel.close()

    def _call(self, method: Any, request: Any, *, again: bool = True) -> Any:
        """One unary call; ``again`` says that a second time is harmless."""
        waited, pause = 0.0, _FIRST_PAUSE_SECONDS
        while True:
            try:
                return method(request, timeout=_CALL_SECONDS)
            except grpc.RpcError as error:
                trouble = explained(error, self.context.server)
                away = trouble.kind is Kind.UNREACHABLE and not self._closed
                if not (away and again) or waited >= self.patience_seconds:
                    raise trouble from error
            self._pause(pause)
            waited += pause
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _stream(self, method: Any, request: Any) -> Iterator[Any]:
        """Messages of a stream; ends it at the server when the reader goes away."""
        call = method(request)
        try:
            yield from call
        except grpc.RpcError as error:
            raise explained(error, self.context.server) from error
        finally:
            call.cancel()

    # Jobs.

    def submit(self, manifest_json: str, *, dry_run: bool = False) -> jobs_pb2.SubmitJobResponse:
        """Submits a manifest. The same one twice is answered alike, so trying again is harmless."""
        request = jobs_pb2.SubmitJobRequest(manifest_json=manifest_json, dry_run=dry_run)
        response: jobs_pb2.SubmitJobResponse = self._call(self.jobs.SubmitJob, request)
        return response

    def withdraw(self, uid: str, *, purge: bool = False) -> None:
        """Asks that a job goes."""
        self._call(self.jobs.WithdrawJob, jobs_pb2.WithdrawJobRequest(uid=uid, purge=purge))

    def get_job(self, namespace: str, name: str) -> jobs_pb2.Job:
        """One job by name."""
        return self._get(jobs_pb2.JobSelector(namespace=namespace, name=name))

    def get_job_by_uid(self, uid: str) -> jobs_pb2.Job:
        """One job by uid."""
        return self._get(jobs_pb2.JobSelector(uid=uid))

    def _get(self, selector: jobs_pb2.JobSelector) -> jobs_pb2.Job:
        response = self._call(self.jobs.GetJob, jobs_pb2.GetJobRequest(selector=selector))
        job: jobs_pb2.Job = response.job
        return job

    def list_jobs(self, selector: jobs_pb2.JobSelector | None = None) -> list[jobs_pb2.Job]:
        """Every job that the selector covers, page by page."""
        jobs: list[jobs_pb2.Job] = []
        token = ""
        while True:
            response = self._call(
                self.jobs.ListJobs,
                jobs_pb2.ListJobsRequest(selector=selector, page_size=_PAGE, page_token=token),
            )
            jobs.extend(response.jobs)
            token = response.next_page_token
            if not token:
                return jobs

    def watch_jobs(
        self,
        selector: jobs_pb2.JobSelector | None = None,
        *,
        outage_seconds: float = 300.0,
        on_outage: Callable[[CallError], None] = lambda _: None,
    ) -> Iterator[jobs_pb2.WatchJobsResponse]:
        """Present jobs, then every change; goes on where it was when the control plane returns.

        Where it was may be forgotten by then (a restored store, a long absence). It begins anew
        then, and tells of jobs that went meanwhile as if it had seen them go.

        Args:
            selector: Which jobs.
            outage_seconds: Longest outage that is waited for.
            on_outage: Told once of each outage that is more than a blink.

        Raises:
            CallError: The control plane stayed away, or refused.
        """
        version, waited, pause, silent = 0, 0.0, _FIRST_PAUSE_SECONDS, False
        told, unseen = dict[str, jobs_pb2.Job](), dict[str, jobs_pb2.Job]()
        while True:
            request = jobs_pb2.WatchJobsRequest(selector=selector, after_version=version)
            try:
                for message in self._stream(self.jobs.WatchJobs, request):
                    version = max(version, message.version)
                    waited, pause, silent = 0.0, _FIRST_PAUSE_SECONDS, False
                    if message.kind == jobs_pb2.WatchJobsResponse.KIND_SYNCED:
                        for uid in unseen:
                            yield _gone(told.pop(uid), message.version)
                        unseen = {}
                    unseen.pop(message.job.uid, None)
                    _note_presence(told, message)
                    yield message
            except CallError as trouble:
                if trouble.kind is Kind.OUTDATED and version:
                    version, unseen = 0, dict(told)
                elif (
                    trouble.kind is not Kind.UNREACHABLE or waited >= outage_seconds or self._closed
                ):
                    raise
                elif waited and not silent:
                    silent = True
                    on_outage(trouble)
            self._pause(pause)
            waited += pause
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def stream_logs(
        self, uid: str, *, attempt: int, unit: int, tail_lines: int, follow: bool
    ) -> Iterator[jobs_pb2.StreamLogsResponse]:
        """Captured output of one unit of one attempt; not resumed by itself."""
        request = jobs_pb2.StreamLogsRequest(
            uid=uid, attempt=attempt, unit=unit, tail_lines=tail_lines, follow=follow
        )
        return self._stream(self.jobs.StreamLogs, request)

    def list_events(self, uid: str = "", after_sequence: int = 0) -> list[jobs_pb2.LoggedEvent]:
        """Everything that happened after a sequence number, of one job or of the cluster."""
        events: list[jobs_pb2.LoggedEvent] = []
        while True:
            response = self._call(
                self.jobs.ListEvents,
                jobs_pb2.ListEventsRequest(uid=uid, after_sequence=after_sequence, page_size=_PAGE),
            )
            events.extend(response.events)
            if response.next_after_sequence <= after_sequence:
                return events
            after_sequence = response.next_after_sequence

    def losses(self, uid: str, after_step: int = 0) -> list[jobs_pb2.LossPoint]:
        """Training losses by step."""
        request = jobs_pb2.GetLossesRequest(uid=uid, after_step=after_step)
        return list(self._call(self.jobs.GetLosses, request).points)

    # The cluster.

    def cluster(self) -> admin_pb2.GetClusterResponse:
        """Version, term, state and totals."""
        response: admin_pb2.GetClusterResponse = self._call(
            self.admin.GetCluster, admin_pb2.GetClusterRequest()
        )
        return response

    def nodes(self) -> list[admin_pb2.NodeStatus]:
        """Every known node."""
        return list(self._call(self.admin.ListNodes, admin_pb2.ListNodesRequest()).nodes)

    def observations(self) -> list[admin_pb2.Observation]:
        """What plans take, as jobs told in passing or someone imported, the newest last."""
        request = admin_pb2.ListObservationsRequest()
        return list(self._call(self.admin.ListObservations, request).observations)

    def import_measurements(
        self, rows: Iterable[common_pb2.MeasuredPlan], *, dry_run: bool = False
    ) -> admin_pb2.ImportMeasurementsResponse:
        """Takes in measured rows, all or none. The same rows twice are harmless."""
        request = admin_pb2.ImportMeasurementsRequest(rows=rows, dry_run=dry_run)
        response: admin_pb2.ImportMeasurementsResponse = self._call(
            self.admin.ImportMeasurements, request
        )
        return response

    def fits(self) -> list[admin_pb2.Fit]:
        """What was learnt of steps, and how well it fits."""
        return list(self._call(self.admin.ListFits, admin_pb2.ListFitsRequest()).fits)

    def forecast_outcomes(self) -> list[admin_pb2.ForecastOutcome]:
        """What came true of estimates that are counted, oldest first."""
        request = admin_pb2.ListForecastOutcomesRequest()
        return list(self._call(self.admin.ListForecastOutcomes, request).outcomes)

    def switch_prices(self) -> list[admin_pb2.SwitchPrice]:
        """What changes of plan or place cost so far, by model and numbers of accelerators."""
        request = admin_pb2.ListSwitchPricesRequest()
        return list(self._call(self.admin.ListSwitchPrices, request).prices)

    def drain(self, node: str, *, drained: bool) -> str:
        """Empties a node and keeps it empty, or takes that back; returns why work is kept off it
        all the same, or nothing.
        """
        request = admin_pb2.DrainNodeRequest(node=node, drained=drained)
        return str(self._call(self.admin.DrainNode, request).note)

    def remove_node(self, node: str) -> None:
        """Forgets a node that is lost."""
        self._call(self.admin.RemoveNode, admin_pb2.RemoveNodeRequest(node=node), again=False)

    def queues(self) -> list[common_pb2.Queue]:
        """Every queue."""
        return list(self._call(self.admin.ListQueues, admin_pb2.ListQueuesRequest()).queues)

    def put_queue(self, queue: common_pb2.Queue) -> admin_pb2.PutQueueResponse:
        """Creates or changes a queue; tells what whoever did should know."""
        request = admin_pb2.PutQueueRequest(queue=queue)
        response: admin_pb2.PutQueueResponse = self._call(self.admin.PutQueue, request)
        return response

    def delete_queue(self, name: str) -> None:
        """Removes a queue."""
        self._call(self.admin.DeleteQueue, admin_pb2.DeleteQueueRequest(name=name), again=False)

    def policy(self) -> admin_pb2.GetPolicyResponse:
        """The policy settings as JSON values, and the policies there are."""
        response: admin_pb2.GetPolicyResponse = self._call(
            self.admin.GetPolicy, admin_pb2.GetPolicyRequest()
        )
        return response

    def set_policy(self, settings: Mapping[str, object]) -> dict[str, object]:
        """Changes the given settings; answers with all of them."""
        request = admin_pb2.SetPolicyRequest(
            settings={name: json.dumps(value) for name, value in settings.items()}
        )
        response = self._call(self.admin.SetPolicy, request)
        return {name: json.loads(value) for name, value in response.settings.items()}

    def try_policy(
        self, settings: Mapping[str, object], version: int = 0
    ) -> admin_pb2.TryPolicyResponse:
        """What the next decision would do differently; changes nothing.

        Args:
            settings: Those to change, as in ``set_policy``.
            version: The version whose settings are tried; 0 for the present ones.
        """
        request = admin_pb2.TryPolicyRequest(
            settings={name: json.dumps(value) for name, value in settings.items()},
            version=version,
        )
        response: admin_pb2.TryPolicyResponse = self._call(self.admin.TryPolicy, request)
        return response

    def policy_versions(self) -> list[admin_pb2.PolicyVersion]:
        """Which settings there were, who set them, and when; oldest first."""
        request = admin_pb2.ListPolicyVersionsRequest()
        return list(self._call(self.admin.ListPolicyVersions, request).versions)

    def roll_back_policy(self, version: int) -> admin_pb2.RollBackPolicyResponse:
        """Sets what a version had, as a new version."""
        request = admin_pb2.RollBackPolicyRequest(version=version)
        response: admin_pb2.RollBackPolicyResponse = self._call(self.admin.RollBackPolicy, request)
        return response

    def explain(self, uid: str) -> admin_pb2.ExplainResponse:
        """Why a job stands where it stands."""
        response: admin_pb2.ExplainResponse = self._call(
            self.admin.Explain, admin_pb2.ExplainRequest(uid=uid)
        )
        return response

    def snapshot(self) -> Iterator[bytes]:
        """The cluster as the deciding loop sees it, in pieces."""
        for piece in self._stream(self.admin.ExportSnapshot, admin_pb2.ExportSnapshotRequest()):
            yield piece.data

    def backup(self) -> Iterator[bytes]:
        """A consistent copy of the store, in pieces."""
        for piece in self._stream(self.admin.Backup, admin_pb2.BackupRequest()):
            yield piece.data


def _note_presence(told: dict[str, jobs_pb2.Job], message: jobs_pb2.WatchJobsResponse) -> None:
    """Keeps in mind which jobs a watch has told as present, by their names alone."""
    job = message.job
    if message.kind == jobs_pb2.WatchJobsResponse.KIND_PRESENT:
        told[job.uid] = jobs_pb2.Job(uid=job.uid, namespace=job.namespace, name=job.name)
    elif message.kind == jobs_pb2.WatchJobsResponse.KIND_GONE:
        told.pop(job.uid, None)


def _gone(job: jobs_pb2.Job, version: int) -> jobs_pb2.WatchJobsResponse:
    gone = jobs_pb2.WatchJobsResponse.KIND_GONE
    return jobs_pb2.WatchJobsResponse(kind=gone, job=job, version=version)


def _channel(context: Context) -> grpc.Channel:
    options: list[tuple[str, str | int]] = [
        ("grpc.max_receive_message_length", _LARGEST_MESSAGE_BYTES),
        *pings(),
        # After an outage the next try must not wait for gRPC's own, much longer back-off.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # A proxy of the environment is for the web, not for a control plane on this machine.
        ("grpc.enable_http_proxy", 0 if context.local else 1),
        *(who_decides(context.server) if context.server.startswith(BY_NAME) else ()),
    ]
    if not context.ca_file:
        return grpc.insecure_channel(context.server, options)
    if context.server_name:
        options.append(("grpc.ssl_target_name_override", context.server_name))
    try:
        credentials = grpc.ssl_channel_credentials(
            Path(context.ca_file).read_bytes(),
            Path(context.key_file).read_bytes() if context.key_file else None,
            Path(context.certificate_file).read_bytes() if context.certificate_file else None,
        )
    except OSError as error:
        raise CallError(
            Kind.UNREACHABLE, f"a TLS file cannot be read: {error.filename}: {error.strerror}"
        ) from error
    return grpc.secure_channel(context.server, credentials, options)
