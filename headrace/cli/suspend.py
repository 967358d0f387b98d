"""``headrace suspend`` and ``resume``: a job rests, or goes on, with its manifest as it is."""

import json

from headrace.cli.get import DEFAULT_NAMESPACE, find_job, jobs_not_there, split
from headrace.cli.output import say
from headrace.cli.session import Session, refuse_force
from headrace.client.client import Client
from headrace.client.trouble import CallError, Kind


def set_suspended(
    session: Session, names: tuple[str, ...], namespace: str, *, suspended: bool, force: bool
) -> None:
    """Suspends the jobs or lets them go on.

    Raises:
        CommandError: A job is not there.
    """
    if session.writes_custom_resources:
        from headrace.cli import apply_kubernetes

        missing = apply_kubernetes.set_suspended(
            session.custom_resources(), names, namespace, suspended=suspended, force=force
        )
        if missing:
            raise apply_kubernetes.objects_not_there(missing)
        return
    refuse_force(force)
    namespace = namespace or DEFAULT_NAMESPACE
    with session.client() as client:
        missing = [each for each in names if not _set(client, each, namespace, suspended)]
    if missing:
        raise jobs_not_there(["/".join(split(each, namespace)) for each in missing])


def _set(client: Client, name: str, namespace: str, suspended: bool) -> bool:
    """Whether there is such a job."""
    try:
        job = find_job(client, name, namespace)
    except CallError as trouble:
        if trouble.kind is not Kind.NOT_FOUND:
            raise
        return False
    manifest = json.loads(job.manifest_json)
    manifest["spec"]["suspend"] = suspended
    # By uid: a new job of the same name, submitted meanwhile, is none of our business.
    manifest["metadata"]["uid"] = job.uid
    result = client.submit(json.dumps(manifest)).result
    already = " already" if result == "unchanged" else ""
    say(f"job/{job.name} {'suspended' if suspended else 'resumed'}{already}")
    return True
