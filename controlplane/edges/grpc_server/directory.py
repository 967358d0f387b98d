"""Jobs by uid and by name, including those whose events are on their way to the loop.

A caller who was told "created" finds the job at once, although the loop folds it a moment later;
and two callers who submit one name at the same time meet here, not in the log.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace

from controlplane.domain.ids import JobUid, SequenceNumber
from controlplane.domain.job import Job
from controlplane.domain.lifecycle import IDLE, Stage
from controlplane.domain.record import JobRecord
from controlplane.edges.grpc_server.feed import Changes, StateFeed

Name = tuple[str, str]
"""Namespace and name."""


@dataclass(eq=False, slots=True)
class Pending:
    """A change of a job that the loop has not folded yet.

    Attributes:
        job: The job as submitted; None for a withdrawal.
        purge: Whether the withdrawal takes its checkpoints.
        sequence: Its event's number; None until it is durable.
        settled: Whether the event is durable, or known not to be.
    """

    job: Job | None
    purge: bool = False
    sequence: SequenceNumber | None = None
    settled: bool = False
    _waited_for: asyncio.Event | None = None

    async def until_settled(self) -> None:
        """Returns when the event is durable, or known not to be."""
        if not self.settled:
            # Made for who waits, which few do: most changes meet no other of the same job.
            self._waited_for = self._waited_for or asyncio.Event()
            await self._waited_for.wait()

    def settle(self, sequence: SequenceNumber | None) -> None:
        """The event is durable under ``sequence``, or failed (None)."""
        self.sequence = sequence
        self.settled = True
        if self._waited_for is not None:
            self._waited_for.set()


class JobDirectory:
    """Finds jobs."""

    def __init__(self, feed: StateFeed) -> None:
        self._feed = feed
        self._by_name: dict[Name, JobUid] = {}
        self._pending: dict[JobUid, Pending] = {}
        self._withdrawing: dict[JobUid, Pending] = {}
        self._pending_names: dict[Name, JobUid] = {}
        for record in feed.state.jobs.values():
            self._index(record)
        feed.listen(self._published)

    def _index(self, record: JobRecord) -> None:
        name = (record.job.namespace, record.job.name)
        if not record.withdrawn:
            self._by_name[name] = record.uid
        elif self._by_name.get(name) == record.uid:
            del self._by_name[name]

    def _published(self, changes: Changes) -> None:
        for record in changes.gone:
            name = (record.job.namespace, record.job.name)
            if self._by_name.get(name) == record.uid:
                del self._by_name[name]
        for uid in changes.jobs:
            self._index(changes.after.jobs[uid])
        folded = self._feed.folded
        for waiting in (self._pending, self._withdrawing):
            for uid in [
                uid
                for uid, pending in waiting.items()
                if pending.sequence is not None and pending.sequence <= folded
            ]:
                self._drop(waiting, uid)

    def _drop(self, waiting: dict[JobUid, Pending], uid: JobUid) -> None:
        job = waiting.pop(uid).job
        if job is not None and self._pending_names.get((job.namespace, job.name)) == uid:
            del self._pending_names[(job.namespace, job.name)]

    def find(self, uid: JobUid) -> JobRecord | None:
        """The job of that uid, as it is or will be."""
        record = self._feed.state.jobs.get(uid)
        pending = self._pending.get(uid)
        if pending is not None and pending.job is not None:
            record = _as_it_will_be(record, pending.job)
        leaving = self._withdrawing.get(uid)
        if leaving is not None and record is not None:
            record = replace(record, withdrawn=True, purge=record.purge or leaving.purge)
        return record

    def find_name(self, name: Name) -> JobRecord | None:
        """The job of that name that was not withdrawn."""
        uid = self._pending_names.get(name) or self._by_name.get(name)
        record = self.find(uid) if uid is not None else None
        return None if record is None or record.withdrawn else record

    def all(self) -> Iterator[JobRecord]:
        """Every job, in order of submission."""
        if not self._pending and not self._withdrawing:
            yield from self._feed.state.jobs.values()
            return
        known = self._feed.state.jobs
        fresh = [uid for uid in self._pending if uid not in known]
        for uid in (*known, *fresh):
            record = self.find(uid)
            if record is not None:
                yield record

    def unsettled(self, name: Name) -> Pending | None:
        """A change of that name whose fate is not known yet."""
        uid = self._pending_names.get(name)
        pending = self._pending.get(uid) if uid is not None else None
        return None if pending is None or pending.settled else pending

    def unsettled_uid(self, uid: JobUid) -> Pending | None:
        """A change of that uid whose fate is not known yet."""
        for pending in (self._pending.get(uid), self._withdrawing.get(uid)):
            if pending is not None and not pending.settled:
                return pending
        return None

    def expect(self, job: Job) -> Pending:
        """The job's event is being made durable."""
        pending = Pending(job)
        self._pending[job.uid] = pending
        self._pending_names[(job.namespace, job.name)] = job.uid
        return pending

    def expect_withdrawal(self, uid: JobUid, *, purge: bool) -> Pending:
        """The withdrawal's event is being made durable."""
        pending = Pending(None, purge)
        self._withdrawing[uid] = pending
        return pending

    def settle(self, uid: JobUid, pending: Pending, sequence: SequenceNumber | None) -> None:
        """The event is durable under ``sequence``, or failed (None)."""
        pending.settle(sequence)
        waiting = self._pending if pending.job is not None else self._withdrawing
        over = sequence is None or sequence <= self._feed.folded
        if over and waiting.get(uid) is pending:
            self._drop(waiting, uid)


def _as_it_will_be(record: JobRecord | None, job: Job) -> JobRecord:
    if record is None:
        stage = Stage.SUSPENDED if job.spec.suspend else Stage.QUEUED
        return JobRecord(job, stage)
    if job.generation <= record.job.generation:
        return record
    job = replace(job, submitted_at=record.job.submitted_at)
    stage = record.stage
    if stage in IDLE:
        stage = Stage.SUSPENDED if job.spec.suspend else Stage.QUEUED
    return replace(record, job=job, stage=stage)
