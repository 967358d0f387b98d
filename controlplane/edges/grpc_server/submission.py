"""JobService, writing side: a manifest becomes an event, once, whoever asks how often.

The owner of an object mints uid and generation. Jobs of the CLI are owned by the control plane: a
name that lives is an update, any other a new uid. Jobs of Kubernetes come with both, and are
read-only for everyone but operators.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import grpc

from controlplane.domain.event import Event, JobSubmitted, JobUpdated, JobWithdrawn
from controlplane.domain.from_manifest import job_from_manifest
from controlplane.domain.ids import JobUid
from controlplane.domain.job import Job, Owner
from controlplane.domain.lifecycle import FINISHED
from controlplane.domain.record import JobRecord
from controlplane.edges.grpc_server.directory import JobDirectory, Name, Pending
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.errors import (
    RefusedError,
    denied,
    invalid,
    not_found,
    precondition,
)
from controlplane.edges.grpc_server.feed import StateFeed
from controlplane.edges.grpc_server.roles import Caller, Role, caller
from controlplane.edges.grpc_server.turns import Turns
from controlplane.wire.manifests import immutable_changes, only_differs_in, parse_manifest
from controlplane.wire.translate import UID, UID_RULE
from controlplane.wire.violations import Violation
from headrace.api.generated import jobs_pb2

_AFTER_FINISH = frozenset({"ttlSecondsAfterFinish"})


class Submission:
    """Accepts and withdraws jobs."""

    def __init__(
        self,
        *,
        feed: StateFeed,
        directory: JobDirectory,
        door: Door,
        mint: Callable[[], JobUid],
    ) -> None:
        self._feed = feed
        self._directory = directory
        self._door = door
        self._mint = mint
        self._turns = Turns()

    async def submit(self, request: jobs_pb2.SubmitJobRequest) -> jobs_pb2.SubmitJobResponse:
        """Accepts a job, or the next generation of one, or says that nothing changed.

        Raises:
            RefusedError: With what is wrong.
            InvalidMessageError: With every field of the manifest that is wrong.
        """
        await self._turns.take()
        try:
            return await self._submit(request, caller.get())
        finally:
            self._turns.give_back()

    async def _submit(
        self, request: jobs_pb2.SubmitJobRequest, who: Caller
    ) -> jobs_pb2.SubmitJobResponse:
        _check_identity(request, who)
        manifest = parse_manifest(request.manifest_json)
        job = job_from_manifest(
            manifest,
            uid=JobUid(request.uid),
            generation=request.generation or 1,
            owner=Owner.KUBERNETES if request.uid else Owner.CONTROL_PLANE,
            submitter=who.identity,
        )
        self._check_queue(job, who)
        name = (job.namespace, job.name)
        # What is on its way under this name or uid decides whether this is new or an update.
        while pending := self._unsettled(name, job.uid):
            await pending.until_settled()
        if request.uid:
            known = self._directory.find(job.uid)
            found = self._directory.find_name(name)
            if known is None and found is not None and found.job.owner is Owner.CONTROL_PLANE:
                raise RefusedError(
                    grpc.StatusCode.ALREADY_EXISTS,
                    f"{job.namespace}/{job.name} is a job of the command line with uid "
                    f"{found.uid}; `headrace delete {job.name} -n {job.namespace}` first",
                )
        else:
            known = self._directory.find_name(name)
            if known is not None and known.job.owner is Owner.KUBERNETES:
                raise _of_kubernetes(known.job, "apply -f FILE")
            _check_expected_uid(manifest.metadata.uid, known)
        if known is None:
            return await self._create(job, dry_run=request.dry_run)
        return await self._update(known, job, who, dry_run=request.dry_run)

    def _unsettled(self, name: Name, uid: JobUid) -> Pending | None:
        return self._directory.unsettled(name) or (
            self._directory.unsettled_uid(uid) if uid else None
        )

    def _check_queue(self, job: Job, who: Caller) -> None:
        if not who.may_use_queue(job.spec.queue):
            may = ", ".join(sorted(who.queues)) or "none"
            raise denied(f"{who.identity} may submit to {may}, not to queue {job.spec.queue}")
        queue = self._feed.state.queues.get(job.spec.queue)
        listed = queue is not None and queue.submitters
        if listed and who.role is Role.SUBMITTER and who.identity not in listed:
            raise denied(f"queue {job.spec.queue} takes jobs of {', '.join(listed)} only")

    def _check_namespace(self, job: Job) -> None:
        """Whoever submits it, and also an operator."""
        queue = self._feed.state.queues.get(job.spec.queue)
        if queue is not None and not queue.takes(job.namespace):
            sentence = (
                f"queue {queue.name} takes jobs of the namespaces {', '.join(queue.namespaces)} "
                f"only, {job.name} is in {job.namespace}; name another queue"
            )
            raise precondition(sentence, [Violation("spec.queue", sentence)])

    async def _create(self, job: Job, *, dry_run: bool) -> jobs_pb2.SubmitJobResponse:
        self._check_namespace(job)
        if dry_run:
            return jobs_pb2.SubmitJobResponse(
                uid=job.uid, generation=job.generation, result="created"
            )
        at = self._door.now()
        job = replace(job, uid=job.uid or self._mint(), submitted_at=at)
        await self._accept(job, JobSubmitted(job, at))
        return jobs_pb2.SubmitJobResponse(uid=job.uid, generation=job.generation, result="created")

    async def _update(
        self, known: JobRecord, job: Job, who: Caller, *, dry_run: bool
    ) -> jobs_pb2.SubmitJobResponse:
        before = known.job
        unchanged = jobs_pb2.SubmitJobResponse(
            uid=before.uid, generation=before.generation, result="unchanged"
        )
        if job.owner is Owner.KUBERNETES:
            if job.generation <= before.generation or known.withdrawn:
                return unchanged
        elif job.spec.manifest_json == before.spec.manifest_json:
            return unchanged
        else:
            job = replace(job, uid=before.uid, generation=before.generation + 1)
        if not who.may_use_queue(before.spec.queue):
            raise denied(f"{who.identity} may not change jobs of queue {before.spec.queue}")
        _check_update(known, job)
        if job.spec.queue != before.spec.queue:
            # Else it was taken, and is told by its reason if that is over.
            self._check_namespace(job)
        if not dry_run:
            job = replace(job, submitted_at=before.submitted_at)
            await self._accept(job, JobUpdated(job, self._door.now()))
        return jobs_pb2.SubmitJobResponse(uid=job.uid, generation=job.generation, result="updated")

    async def _accept(self, job: Job, event: JobSubmitted | JobUpdated) -> None:
        await self._settled(job.uid, self._directory.expect(job), event)

    async def _settled(self, uid: JobUid, pending: Pending, event: Event) -> None:
        """Waits until the event is durable. The bookkeeping does not hang on this caller, who may
        go away at any time.
        """
        settle = partial(self._directory.settle, uid, pending)
        try:
            on_its_way = self._door.begin(event, settle)
        except BaseException:
            settle(None)
            raise
        await on_its_way

    async def withdraw(self, request: jobs_pb2.WithdrawJobRequest) -> None:
        """Asks that a job goes. A second time is harmless.

        Raises:
            RefusedError: No such job, or it is not the caller's.
        """
        who = caller.get()
        if UID.fullmatch(request.uid) is None:
            raise invalid("uid", f"wanted {UID_RULE}, got {request.uid!r}")
        uid = JobUid(request.uid)
        while pending := self._directory.unsettled_uid(uid):
            await pending.until_settled()
        record = self._directory.find(uid)
        if record is None:
            await self._withdraw_unknown(uid, request.purge, who)
            return
        job = record.job
        if job.owner is Owner.KUBERNETES and who.role is not Role.OPERATOR:
            raise _of_kubernetes(job, f"delete trainingjob {job.name} -n {job.namespace}")
        if not who.may_use_queue(job.spec.queue):
            raise denied(f"{who.identity} may not withdraw jobs of queue {job.spec.queue}")
        if record.withdrawn and (record.purge or not request.purge):
            return
        event = JobWithdrawn(uid, request.purge, self._door.now())
        leaving = self._directory.expect_withdrawal(uid, purge=request.purge)
        await self._settled(uid, leaving, event)

    async def _withdraw_unknown(self, uid: JobUid, purge: bool, who: Caller) -> None:
        """For a uid that only some node knows, this is the order to end its strays."""
        state = self._feed.state
        if uid in state.unwanted:
            return
        strays = any(stray.uid == uid for node in state.nodes.values() for stray in node.strays)
        if not strays and who.role is not Role.OPERATOR:
            raise not_found("job with uid", uid, "`headrace get -o wide` shows uids")
        if who.role not in (Role.ADMIN, Role.OPERATOR):
            raise denied(f"only admins and operators may end strays, {who.identity} is neither")
        if strays and purge:
            raise precondition(
                f"nobody knows where {uid} keeps its checkpoints, for its manifest is not known "
                "here; end it without purge, then remove them with `python -m "
                f"headrace.workloads.checkpoints purge --store STORE --uid {uid}`"
            )
        await self._door.append_and_fold(JobWithdrawn(uid, purge, self._door.now()))


def _check_identity(request: jobs_pb2.SubmitJobRequest, who: Caller) -> None:
    if not request.uid:
        if request.generation:
            raise invalid(
                "generation",
                f"wanted none without a uid: the control plane counts, got {request.generation}",
            )
        return
    if who.role is Role.SUBMITTER:
        raise denied("only operators bring a uid of their own; leave uid and generation empty")
    if UID.fullmatch(request.uid) is None:
        raise invalid("uid", f"wanted {UID_RULE}, got {request.uid!r}")
    if request.generation < 1:
        raise invalid("generation", f"wanted 1 or more with a uid, got {request.generation}")


def _check_expected_uid(expected: str | None, known: JobRecord | None) -> None:
    """A manifest that was read back carries the uid it was read from."""
    if expected is None or (known is not None and known.uid == expected):
        return
    there = f"the job of that name now has uid {known.uid}" if known else "no job has that uid"
    raise precondition(
        f"the manifest is of uid {expected}, but {there}; remove metadata.uid to submit it anew"
    )


def _check_update(known: JobRecord, job: Job) -> None:
    before, after = known.job.spec.manifest_json, job.spec.manifest_json
    changes = immutable_changes(before, after)
    if changes:
        raise precondition("; ".join(str(change) for change in changes), changes)
    if known.stage in FINISHED and not only_differs_in(before, after, _AFTER_FINISH):
        raise precondition(
            f"{job.namespace}/{job.name} has {known.stage.lower()}; delete it before a new start"
        )


def _of_kubernetes(job: Job, command: str) -> RefusedError:
    return precondition(
        f"{job.namespace}/{job.name} is owned by Kubernetes and read-only here; "
        f"use `kubectl {command}`, or the same command of headrace with --kubeconfig"
    )
