"""JobService: get, list, watch, events, losses and logs here; changes go to ``submission``."""

import base64
import binascii
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing

from controlplane.domain.action import ForgetJob
from controlplane.domain.clock import Clock, Instant
from controlplane.domain.ids import Attempt, JobUid, NodeId, SequenceNumber
from controlplane.domain.record import JobRecord
from controlplane.edges.grpc_server.directory import JobDirectory
from controlplane.edges.grpc_server.errors import invalid, not_found, precondition
from controlplane.edges.grpc_server.feed import Gone, StateFeed, Watcher
from controlplane.edges.grpc_server.gatekeeper import Context
from controlplane.edges.grpc_server.history import History
from controlplane.edges.grpc_server.log_broker import LogBroker, LogRequest
from controlplane.edges.grpc_server.submission import Submission
from controlplane.edges.grpc_server.watching import forgotten_since, outdated
from controlplane.wire.sentences import Names, logged_decision, logged_event, named_in
from controlplane.wire.status import gone_to_wire, job_to_wire
from controlplane.wire.translate import timestamp
from headrace.api.generated import jobs_pb2, jobs_pb2_grpc

_PAGE_DEFAULT = 100
_PAGE_MOST = 1000
_LAST_DECISIONS = 64
"""Among so many of a forgotten job's last decisions is the one that forgot it."""
_LOSSES_MOST = 200_000
"""Losses of one answer; a caller who got so many asks on after the last step."""


class JobService(jobs_pb2_grpc.JobServiceServicer):
    """What users and operators say about jobs."""

    def __init__(
        self,
        *,
        feed: StateFeed,
        directory: JobDirectory,
        submission: Submission,
        history: History,
        logs: LogBroker,
        clock: Clock,
    ) -> None:
        self._feed = feed
        self._directory = directory
        self._submission = submission
        self._history = history
        self._logs = logs
        self._clock = clock

    async def SubmitJob(  # noqa: N802
        self, request: jobs_pb2.SubmitJobRequest, context: Context
    ) -> jobs_pb2.SubmitJobResponse:
        """Accepts a job or the next generation of one."""
        return await self._submission.submit(request)

    async def WithdrawJob(  # noqa: N802
        self, request: jobs_pb2.WithdrawJobRequest, context: Context
    ) -> jobs_pb2.WithdrawJobResponse:
        """Asks that a job goes."""
        if request.purge:
            await self._check_not_kept(JobUid(request.uid))
        await self._submission.withdraw(request)
        return jobs_pb2.WithdrawJobResponse()

    async def _check_not_kept(self, uid: JobUid) -> None:
        """A purge twice is harmless; one of a job that went without it would be an empty promise.

        Raises:
            RefusedError: The job is gone, and its checkpoints stayed.
        """
        if uid not in self._feed.state.unwanted:
            return
        decisions = await self._history.decisions(uid, _LAST_DECISIONS)
        ends = [one.action for one in decisions if isinstance(one.action, ForgetJob)]
        if not ends or not ends[-1].purge:
            raise precondition(
                f"{uid} is gone and its checkpoints were kept; remove them with `python -m "
                f"headrace.workloads.checkpoints purge --store STORE --uid {uid}`"
            )

    async def GetJob(  # noqa: N802
        self, request: jobs_pb2.GetJobRequest, context: Context
    ) -> jobs_pb2.GetJobResponse:
        """One job, by uid or by name."""
        selector = request.selector
        if selector.uid:
            record = self._directory.find(JobUid(selector.uid))
            if record is None:
                raise not_found("job with uid", selector.uid)
            return jobs_pb2.GetJobResponse(job=self._told(record))
        if not selector.name:
            raise invalid("selector", "wanted a uid or a name, got neither")
        namespace = selector.namespace or "default"
        record = self._directory.find_name((namespace, selector.name)) or next(
            (r for r in self._directory.all() if _matches(r, selector, namespace)), None
        )
        if record is None:
            raise not_found("job", f"{namespace}/{selector.name}", "`headrace get jobs` lists all")
        return jobs_pb2.GetJobResponse(job=self._told(record))

    async def ListJobs(  # noqa: N802
        self, request: jobs_pb2.ListJobsRequest, context: Context
    ) -> jobs_pb2.ListJobsResponse:
        """Jobs in order of submission, a page at a time.

        Pages are of the moment each is asked for; whoever wants to miss nothing watches from
        the version of the first page.
        """
        size = _page_size(request.page_size)
        begin = _read_token(request.page_token)
        version = self._feed.version
        page: list[JobRecord] = []
        token = ""
        for record in sorted(self._directory.all(), key=_order):
            if begin and _order(record) <= begin:
                continue
            if not _matches(record, request.selector):
                continue
            if len(page) == size:
                token = _write_token(page[-1])
                break
            page.append(record)
        return jobs_pb2.ListJobsResponse(
            jobs=[self._told(record) for record in page], next_page_token=token, version=version
        )

    async def WatchJobs(  # noqa: N802
        self, request: jobs_pb2.WatchJobsRequest, context: Context
    ) -> AsyncIterator[jobs_pb2.WatchJobsResponse]:
        """The present jobs (or what changed since a version), then every change."""
        watcher = self._feed.watch()
        told = 0
        try:
            async for answer in self._begin(request):
                told = answer.version
                yield answer
            while not watcher.ended:
                await watcher.wait()
                for answer in self._news(watcher, request.selector, told):
                    told = answer.version
                    yield answer
            raise outdated(watcher.ended)
        finally:
            self._feed.unwatch(watcher)

    async def _begin(
        self, request: jobs_pb2.WatchJobsRequest
    ) -> AsyncIterator[jobs_pb2.WatchJobsResponse]:
        after, version = request.after_version, self._feed.version
        if after < 0:
            raise invalid("after_version", f"wanted 0 or a version, got {after}")
        changed, gone = list(self._feed.state.jobs), list[Gone]()
        if after > 0:
            known = self._feed.since(after)
            if known is not None:
                changed, gone = known
            else:
                # From before this process: every job is told, and the log knows who went.
                gone = await forgotten_since(self._history, self._feed, after)
        for answer in self._answers(changed, gone, request.selector):
            answer.version = after
            yield answer
        yield jobs_pb2.WatchJobsResponse(
            kind=jobs_pb2.WatchJobsResponse.KIND_SYNCED, version=version
        )

    def _news(
        self, watcher: Watcher, selector: jobs_pb2.JobSelector, before: int
    ) -> list[jobs_pb2.WatchJobsResponse]:
        """Unseen changes. Only the last carries the new version: whoever got but some of them
        resumes from the version before, and gets all again.
        """
        changed, gone = watcher.take()
        answers = self._answers(changed, gone, selector)
        for answer in answers[:-1]:
            answer.version = before
        for answer in answers[-1:]:
            answer.version = self._feed.version
        return answers

    def _answers(
        self,
        changed: Collection[JobUid],
        gone: Collection[Gone],
        selector: jobs_pb2.JobSelector,
    ) -> list[jobs_pb2.WatchJobsResponse]:
        present = (self._feed.state.jobs.get(uid) for uid in changed)
        answers = [
            jobs_pb2.WatchJobsResponse(
                kind=jobs_pb2.WatchJobsResponse.KIND_PRESENT, job=self._told(record)
            )
            for record in present
            if record is not None and _matches(record, selector)
        ]
        answers.extend(
            jobs_pb2.WatchJobsResponse(
                kind=jobs_pb2.WatchJobsResponse.KIND_GONE,
                job=gone_to_wire(job.uid, job.namespace, job.name),
            )
            for job in gone
            if _selects(selector, job.uid, job.namespace, job.name, job.queue)
        )
        return answers

    async def ListEvents(  # noqa: N802
        self, request: jobs_pb2.ListEventsRequest, context: Context
    ) -> jobs_pb2.ListEventsResponse:
        """What happened and was decided."""
        size = _page_size(request.page_size)
        if request.after_sequence < 0:
            raise invalid("after_sequence", f"wanted 0 or more, got {request.after_sequence}")
        after = SequenceNumber(request.after_sequence)
        only = JobUid(request.uid) if request.uid else None
        found = await self._history.events(only, after, size + 1)
        about = {uid for e in found for uid in named_in(e.event)}
        name_of = await self._names(about if only is None else about | {only})
        told = [logged_event(e.sequence, e.event, name_of) for e in found]
        more = len(found) > size
        if only is not None:
            # A decision is about many jobs; the store keeps what it says of each apart.
            decided = await self._history.decisions_after(only, after, size)
            more = more or len(decided) > size
            told.extend(logged_decision(decision, name_of) for decision in decided)
            told.sort(key=lambda event: event.sequence)
        page = _whole_sequences(told, size)
        return jobs_pb2.ListEventsResponse(
            events=page,
            next_after_sequence=page[-1].sequence if more or len(told) > len(page) else 0,
        )

    async def GetLosses(  # noqa: N802
        self, request: jobs_pb2.GetLossesRequest, context: Context
    ) -> jobs_pb2.GetLossesResponse:
        """Training losses by step."""
        if not request.uid:
            raise invalid("uid", "wanted the uid of a job, got ''")
        # 0 is also what a caller leaves out, who wants all: there may be a step 0.
        after = request.after_step or -1
        rows = await self._history.losses(JobUid(request.uid), after, _LOSSES_MOST)
        return jobs_pb2.GetLossesResponse(
            points=[
                jobs_pb2.LossPoint(
                    step=row.step, loss=row.loss, attempt=row.attempt, at=timestamp(Instant(row.at))
                )
                for row in rows
            ]
        )

    async def StreamLogs(  # noqa: N802
        self, request: jobs_pb2.StreamLogsRequest, context: Context
    ) -> AsyncIterator[jobs_pb2.StreamLogsResponse]:
        """Captured output of one launch unit, brokered from its node's agent."""
        for field, number, least in (
            ("attempt", request.attempt, 0),
            ("unit", request.unit, 0),
            ("tail_lines", request.tail_lines, -1),
        ):
            if number < least:
                raise invalid(field, f"wanted {least} or more, got {number}")
        record = self._directory.find(JobUid(request.uid))
        attempt = Attempt(request.attempt or (record.attempts_made if record else 0))
        node: NodeId | None = None
        if attempt:
            node = await self._place_of(record, JobUid(request.uid), attempt, request.unit)
        elif record is None:
            raise not_found("job with uid", request.uid)
        if node is None and attempt:
            what = f"unit {request.unit} in attempt"
            raise not_found(what, str(attempt), "its start is not in the log (any more)")
        if node is None:
            note = "the job has not started yet, so there is no output"
            yield jobs_pb2.StreamLogsResponse(unit=request.unit, note=note)
            return
        wanted = LogRequest(
            JobUid(request.uid), attempt, request.unit, request.tail_lines, request.follow
        )
        async with aclosing(self._logs.read(node, wanted)) as pieces:
            async for piece in pieces:
                yield jobs_pb2.StreamLogsResponse(
                    data=piece.data, attempt=attempt, unit=request.unit, note=piece.note
                )

    async def _place_of(
        self, record: JobRecord | None, uid: JobUid, attempt: Attempt, unit: int
    ) -> NodeId | None:
        """Where a unit runs or ran: known for the present attempt, looked up for earlier ones."""
        present = record.attempt if record is not None else None
        if present is not None and present.number == attempt:
            known = present.unit(unit)
            if known is not None:
                return known.node
        return await self._history.node_of(uid, attempt, unit)

    async def _names(self, uids: Collection[JobUid]) -> Names:
        """What people call these jobs; the log knows of those that are forgotten."""
        present = {uid: self._directory.find(uid) for uid in uids}
        gone = await self._history.names([uid for uid, record in present.items() if record is None])
        names = {**gone, **{uid: record.job.name for uid, record in present.items() if record}}
        return lambda uid: names.get(uid, str(uid))

    def _told(self, record: JobRecord) -> jobs_pb2.Job:
        known = self._feed.as_of_now(record)
        state = self._feed.state
        told = state.forecasts.get(record.uid)
        forecast = told.newest if told is not None else None
        return job_to_wire(known, self._clock.now(), state.silent_nodes, forecast)


def _whole_sequences(events: list[jobs_pb2.LoggedEvent], size: int) -> list[jobs_pb2.LoggedEvent]:
    """The first ``size`` events, and what else carries the last one's number: a page that begins
    after that number must miss nothing.
    """
    end = size
    while 0 < end < len(events) and events[end].sequence == events[end - 1].sequence:
        end += 1
    return events[:end]


def _page_size(asked: int) -> int:
    if asked < 0 or asked > _PAGE_MOST:
        raise invalid("page_size", f"wanted 0 (for {_PAGE_DEFAULT}) to {_PAGE_MOST}, got {asked}")
    return asked or _PAGE_DEFAULT


def _order(record: JobRecord) -> tuple[int, str]:
    return record.job.submitted_at, record.uid


def _write_token(record: JobRecord) -> str:
    at, uid = _order(record)
    return base64.urlsafe_b64encode(f"{at}:{uid}".encode()).decode()


def _read_token(token: str) -> tuple[int, str] | None:
    if not token:
        return None
    try:
        at, uid = base64.urlsafe_b64decode(token.encode()).decode().split(":", 1)
        return int(at), uid
    except (ValueError, binascii.Error):
        raise invalid("page_token", f"wanted a token of an earlier page, got {token!r}") from None


def _matches(
    record: JobRecord, selector: jobs_pb2.JobSelector, namespace: str | None = None
) -> bool:
    job = record.job
    if namespace is not None and job.namespace != namespace:
        return False
    return _selects(selector, job.uid, job.namespace, job.name, job.spec.queue)


def _selects(
    selector: jobs_pb2.JobSelector, uid: str, namespace: str, name: str, queue: str
) -> bool:
    return all(
        wanted in ("", got)
        for wanted, got in (
            (selector.namespace, namespace),
            (selector.name, name),
            (selector.uid, uid),
            (selector.queue, queue),
        )
    )
