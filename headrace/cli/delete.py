"""``headrace delete``: withdraws jobs by name or manifest, deletes queues by manifest, and ends
strays of unknown jobs by uid.
"""

import sys
from dataclasses import dataclass

from headrace.api.manifest import Metadata
from headrace.api.manifest_policy import ClusterPolicy
from headrace.api.manifest_source import read_objects
from headrace.api.refusal import Problem
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.get import DEFAULT_NAMESPACE, find_job, jobs_not_there, split
from headrace.cli.output import is_terminal, note, note_outage, say
from headrace.cli.session import Session
from headrace.cli.wait import deadline
from headrace.client.client import Client
from headrace.client.trouble import CallError, Kind


def delete(
    session: Session,
    names: tuple[str, ...],
    namespace: str,
    *,
    files: tuple[str, ...] = (),
    orphans: tuple[str, ...],
    purge: bool,
    wait: bool,
    timeout_seconds: float,
) -> None:
    """Withdraws the jobs.

    Raises:
        CommandError: Nothing was named, a job is not there or did not go in time, custom resources
            cannot be asked so, or somebody pressed Ctrl-C.
    """
    if session.writes_custom_resources:
        if purge or orphans:
            raise CommandError(ExitCode.USAGE, _OVER_GRPC)
        _delete_objects(session, names, namespace, files, timeout_seconds if wait else None)
        return
    namespace = namespace or DEFAULT_NAMESPACE
    described = _described(files)
    names += tuple(f"{each.namespace}/{each.name}" for each in described.jobs)
    if not names and not orphans and not files:
        raise CommandError(ExitCode.USAGE, "wanted the name of a job, -f FILE, or --orphan UID")
    missing: list[str] = []
    withdrawn: dict[str, str] = {}
    with session.client() as client:
        for name in names:
            try:
                job = find_job(client, name, namespace)
            except CallError as trouble:
                if trouble.kind is not Kind.NOT_FOUND:
                    raise
                missing.append("/".join(split(name, namespace)))
                continue
            # By uid: a new job of the same name, submitted meanwhile, is none of our business.
            client.withdraw(job.uid, purge=purge)
            withdrawn[job.uid] = name
            label = name.removeprefix(f"{namespace}/")
            say(f"job/{label} withdrawn" + ("" if purge else "; its checkpoints stay"))
        for uid in orphans:
            client.withdraw(uid, purge=purge)
            say(f"what still runs of {uid} will be ended")
        _delete_queues(client, described.queues, missing)
        if wait and withdrawn:
            try:
                _wait_until_gone(client, withdrawn, timeout_seconds)
            except KeyboardInterrupt:
                raise CommandError(
                    ExitCode.INTERRUPTED,
                    f"interrupted; {', '.join(withdrawn.values())} will go all the same (`headrace "
                    "get jobs` shows what is left)",
                ) from None
    if missing:
        raise jobs_not_there(missing)


_OVER_GRPC = (
    "--purge and --orphan are for jobs that the control plane owns, without --kubernetes, "
    "--kubeconfig and --kube-context; checkpoints of an object's job are removed with `python -m "
    "headrace.workloads.checkpoints purge --store STORE --uid UID`"
)


def _delete_objects(
    session: Session,
    names: tuple[str, ...],
    namespace: str,
    files: tuple[str, ...],
    wait_seconds: float | None,
) -> None:
    """Deletes custom resources; waits so long until they are gone, or not at all with None."""
    from headrace.cli import apply_kubernetes
    from headrace.cli.apply import refuse

    read = read_objects(files, sys.stdin.read() if "-" in files else "")
    refuse(read.findings if files else (), done="deleted")
    if not names and not files:
        raise CommandError(ExitCode.USAGE, "wanted the name of a job, or -f FILE")
    wanted = [("TrainingJob", *split(each, namespace)) for each in names]
    wanted += [("TrainingJob", *_named(each.job.metadata)) for each in read.jobs]
    wanted += [(each.object.kind, "", each.object.metadata.name) for each in read.cluster]
    resources = session.custom_resources()
    going, missing = apply_kubernetes.delete_objects(resources, wanted)
    if wait_seconds is not None:
        apply_kubernetes.wait_until_gone(resources, going, wait_seconds)
    if missing:
        raise apply_kubernetes.objects_not_there(missing)


def _named(metadata: Metadata) -> tuple[str, str]:
    """Namespace, if the manifest has one, and name."""
    has_one = "namespace" in metadata.model_fields_set
    return metadata.namespace if has_one else "", metadata.name


@dataclass(frozen=True, slots=True)
class _Described:
    """What manifests name: jobs by namespace and name, and queues."""

    jobs: tuple[Metadata, ...] = ()
    queues: tuple[str, ...] = ()


def _described(files: tuple[str, ...]) -> _Described:
    """What is to be deleted by manifests.

    Raises:
        CommandError: A manifest is wrong, or of what cannot be deleted.
    """
    if not files:
        return _Described()
    from headrace.cli.apply import refuse

    read = read_objects(files, sys.stdin.read() if "-" in files else "")
    sentence = "a cluster always has a policy; `headrace policy rollback` takes a change back"
    policies = (
        each.source.finding(Problem(("kind",), sentence))
        for each in read.cluster
        if isinstance(each.object, ClusterPolicy)
    )
    refuse((*read.findings, *policies), done="deleted")
    return _Described(
        tuple(each.job.metadata for each in read.jobs),
        tuple(each.object.metadata.name for each in read.cluster),
    )


def _delete_queues(client: Client, queues: tuple[str, ...], missing: list[str]) -> None:
    for name in queues:
        try:
            client.delete_queue(name)
        except CallError as trouble:
            if trouble.kind is not Kind.NOT_FOUND:
                raise
            missing.append(name)
            continue
        say(f"queue/{name} deleted")


def _wait_until_gone(client: Client, withdrawn: dict[str, str], timeout_seconds: float) -> None:
    from headrace.api.generated import jobs_pb2

    if is_terminal(sys.stderr):
        note("waiting until they are gone ...")
    left = dict(withdrawn)
    present: set[str] = set()
    synced = False
    with deadline(client, timeout_seconds):
        for message in client.watch_jobs(on_outage=note_outage):
            if message.kind == jobs_pb2.WatchJobsResponse.KIND_SYNCED:
                synced = True
                left = {uid: name for uid, name in left.items() if uid in present}
            elif message.kind == jobs_pb2.WatchJobsResponse.KIND_GONE:
                left.pop(message.job.uid, None)
            else:
                present.add(message.job.uid)
            if synced and not left:
                return
    raise CommandError(
        ExitCode.TIMED_OUT, f"{', '.join(left.values())} not gone after {timeout_seconds:g} s"
    )
