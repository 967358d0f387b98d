"""What ``headrace apply`` does with queues and the policy."""

import json
from collections.abc import Iterator, Sequence

from pydantic.alias_generators import to_camel

from headrace.api.generated import common_pb2
from headrace.api.manifest_kinds import ClusterObject
from headrace.api.manifest_policy import ClusterPolicy
from headrace.api.manifest_queue import Queue
from headrace.api.manifest_source import Finding, SourcedClusterObject, SourcedJob
from headrace.api.refusal import Problem
from headrace.cli.output import note
from headrace.client.client import Client
from headrace.client.trouble import CallError, Kind


def label(of: ClusterObject) -> str:
    """What lines call it."""
    return f"{'queue' if isinstance(of, Queue) else 'policy'}/{of.metadata.name}"


def queues_of(objects: Sequence[SourcedClusterObject]) -> dict[str, Queue]:
    """The queues among them, by name."""
    found = (each.object for each in objects)
    return {each.metadata.name: each for each in found if isinstance(each, Queue)}


def refused(client: Client, objects: Sequence[SourcedClusterObject]) -> Iterator[Finding]:
    """Why the control plane would not take a policy over. A queue is right if its manifest is."""
    for sourced in objects:
        if not isinstance(sourced.object, ClusterPolicy):
            continue
        try:
            client.try_policy(sourced.object.spec.settings())
        except CallError as trouble:
            if trouble.kind is not Kind.REFUSED or not trouble.violations:
                raise
            for each in trouble.violations:
                keys = _keys_of(each.field)
                yield sourced.source.finding(Problem(keys, each.description))


def _keys_of(field: str) -> tuple[str, ...]:
    """``settings[rubick.attempts]`` as the path in the manifest."""
    name = field.removeprefix("settings[").removesuffix("]")
    return "spec", *map(to_camel, name.split("."))


def not_taken(sourced: SourcedJob, queues: dict[str, Queue]) -> Iterator[Finding]:
    """Why a queue that is applied with the job would not take it."""
    metadata, name = sourced.job.metadata, sourced.job.spec.queue
    taken = queues[name].spec.namespaces if name in queues else ()
    if taken and metadata.namespace not in taken:
        sentence = (
            f"queue {name} takes jobs of the namespaces {', '.join(taken)} only, {metadata.name} "
            f"is in {metadata.namespace}; name another queue"
        )
        yield sourced.source.finding(Problem(("spec", "queue"), sentence))


def put(client: Client, wanted: ClusterObject) -> str:
    """Takes it over; what that came to."""
    if isinstance(wanted, Queue):
        return _put_queue(client, wanted)
    before = client.policy().settings.items()
    after = client.set_policy(wanted.spec.settings())
    same = after == {name: json.loads(value) for name, value in before}
    return "unchanged" if same else "updated"


def _put_queue(client: Client, wanted: Queue) -> str:
    spec = wanted.spec
    queue = common_pb2.Queue(
        name=wanted.metadata.name,
        quota_accelerators=spec.quota_accelerators,
        borrowing_accelerators=spec.borrowing_accelerators,
        submitters=sorted(spec.submitters),
        namespaces=sorted(spec.namespaces),
    )
    before = {each.name: _asked(each) for each in client.queues()}
    for warning in client.put_queue(queue).warnings:
        note(f"headrace: {warning}")
    if queue.name not in before:
        return "created"
    return "unchanged" if before[queue.name] == _asked(queue) else "updated"


def _asked(queue: common_pb2.Queue) -> bytes:
    """What someone asked for of it, without what it holds."""
    asked = common_pb2.Queue()
    asked.CopyFrom(queue)
    for field in ("held_accelerators", "jobs_running", "jobs_waiting"):
        asked.ClearField(field)
    return asked.SerializeToString(deterministic=True)
