"""What is asked, as the command line writes it, and the changes that it means for one cluster."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from controlplane.domain.event import Event, NodeDrained, NodeLost
from controlplane.domain.from_manifest import job_from_manifest
from controlplane.domain.ids import AcceleratorId, JobUid, NodeId, QueueName
from controlplane.domain.job import Job
from controlplane.domain.node import Accelerator, Contact, Node
from controlplane.domain.policy import Policy
from controlplane.domain.queue import Queue
from controlplane.engine.state import ClusterState
from headrace.api.counted import counted
from headrace.api.manifest import TrainingJob


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AddedNodes(_Strict):
    """Nodes that would join; without a type, of the one that the cluster has."""

    count: PositiveInt
    accelerators: PositiveInt
    type: str = ""


class Question(_Strict):
    """Which cluster, and what would change.

    Attributes:
        snapshot: File that `headrace snapshot` wrote.
        add_nodes: Nodes that join.
        remove_nodes: Nodes that are lost at once.
        drain: Nodes that are drained.
        quotas: Accelerators that queues may hold; None for no limit.
        policy: The policy that decides instead; empty for the cluster's own.
        switch_seconds: What each start and each change takes; None for what the cluster saw.
        step_seconds: What a step takes on the accelerators that a job asks for, by the job's name
            or, under the empty name, of every job of which nothing else is known.
        manifests: Jobs that are submitted, as canonical JSON.
        now_seconds: When it is asked, in seconds since 1970, if that is of a live cluster; None for
            the snapshot's last instant.
    """

    snapshot: Path
    add_nodes: tuple[AddedNodes, ...] = ()
    remove_nodes: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    quotas: dict[str, int | None] = Field(default_factory=dict)
    policy: str = ""
    switch_seconds: float | None = Field(None, ge=0)
    step_seconds: dict[str, PositiveFloat] = Field(default_factory=dict)
    manifests: tuple[str, ...] = ()
    now_seconds: PositiveFloat | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What would change, all of it at once.

    Attributes:
        nodes: Nodes that join.
        queues: Queues as they would be.
        jobs: Jobs that are submitted.
        events: What else happens.
        policy: Name of the policy that decides.
        told: Each change as a clause.
    """

    nodes: tuple[Node, ...]
    queues: tuple[Queue, ...]
    jobs: tuple[Job, ...]
    events: tuple[Event, ...]
    policy: str
    told: tuple[str, ...]


def changes_of(question: Question, state: ClusterState, policies: Mapping[str, Policy]) -> Changes:
    """The changes, checked against the cluster.

    Raises:
        ValueError: With everything that cannot be asked of this cluster, a line each.
    """
    problems = [
        *_unknown("--remove-node", question.remove_nodes, "node", state.nodes),
        *_unknown("--drain", question.drain, "node", state.nodes),
        *_unknown("--quota", question.quotas, "queue", state.queues),
        *_unknown("--policy", [question.policy] if question.policy else [], "policy", policies),
        *_lost_already(question.remove_nodes, state),
        *_types_unknown(question.add_nodes, state),
    ]
    manifests = [TrainingJob.model_validate_json(text) for text in question.manifests]
    jobs = tuple(_submitted(each) for each in manifests)
    problems += _names_taken(jobs, state)
    if problems:
        raise ValueError("\n".join(problems))
    nodes = tuple(_nodes(question.add_nodes, state))
    queues = tuple(
        replace(state.queues[QueueName(name)], quota_accelerators=quota)
        for name, quota in question.quotas.items()
    )
    lost = [NodeLost(NodeId(name)) for name in dict.fromkeys(question.remove_nodes)]
    drained = [NodeDrained(NodeId(name), drained=True) for name in dict.fromkeys(question.drain)]
    policy = question.policy or state.settings.policy
    return Changes(
        nodes, queues, jobs, (*lost, *drained), policy, tuple(_told(question, nodes, jobs, state))
    )


def _unknown(option: str, asked: Iterable[str], kind: str, known: Iterable[str]) -> Iterator[str]:
    there = sorted(known)
    for name in asked:
        if name not in there:
            listed = f"there are {', '.join(there)}" if there else "there are none"
            yield f"{option}: there is no {kind} {name!r}; {listed}"


def _lost_already(names: Iterable[str], state: ClusterState) -> Iterator[str]:
    for name in names:
        node = state.nodes.get(NodeId(name))
        if node is not None and node.contact is Contact.LOST:
            yield f"--remove-node: {name} is lost already, so nothing would change"


def _types_unknown(asked: Iterable[AddedNodes], state: ClusterState) -> Iterator[str]:
    there = _types(state)
    for each in asked:
        if not each.type and len(there) != 1:
            wanted = f"one of its types, {', '.join(there)}" if there else "a type"
            shown = f"{each.count}x{each.accelerators}"
            yield f"--add-nodes: wanted {wanted}, as in {shown}:TYPE, got {shown}"
        elif each.type and there and each.type not in there:
            yield (
                f"--add-nodes: wanted a type that the cluster has ({', '.join(there)}), got "
                f"{each.type!r}, of which nobody knows how fast it is"
            )


def _types(state: ClusterState) -> list[str]:
    every = (a.type for record in state.nodes.values() for a in record.node.accelerators)
    return sorted(set(every))


def _names_taken(jobs: Iterable[Job], state: ClusterState) -> Iterator[str]:
    living = {
        record.job.full_name
        for record in state.jobs.values()
        if record.finished_at is None and not record.withdrawn
    }
    for job in jobs:
        if job.full_name in living:
            yield (
                f"--submit: there is a job {job.full_name} already, and to apply this manifest "
                "would change that one; give it another name to ask what a further job would do"
            )


def _submitted(manifest: TrainingJob) -> Job:
    """The very job that a submission of this manifest makes, but for its uid."""
    name = f"{manifest.metadata.namespace}/{manifest.metadata.name}"
    return job_from_manifest(manifest, uid=JobUid(f"what-if/{name}"))


def _nodes(asked: Iterable[AddedNodes], state: ClusterState) -> Iterator[Node]:
    """The nodes that join, each like one of its type that is there: with its labels, its memory
    and as many cores for each accelerator.
    """
    number = 0
    for group in asked:
        kind = group.type or _types(state)[0]
        for _ in range(group.count):
            number += 1
            while NodeId(f"what-if-{number}") in state.nodes:
                number += 1
            yield _like(state, NodeId(f"what-if-{number}"), kind, group.accelerators)


def _like(state: ClusterState, name: NodeId, kind: str, count: int) -> Node:
    alike = [
        record.node
        for record in state.nodes.values()
        if any(each.type == kind for each in record.node.accelerators)
    ]
    # One of as many accelerators, if there is one: its neighbours are taken for the new one's.
    model = next((node for node in alike if len(node.accelerators) == count), None)
    model = model or (alike[0] if alike else Node(name, ()))
    pattern = next(
        (each for each in model.accelerators if each.type == kind),
        Accelerator(AcceleratorId(""), kind),
    )
    cores = len(pattern.cpu_cores)
    islands = [each.island for each in model.accelerators if each.type == kind] or [""]
    accelerators = tuple(
        replace(
            pattern,
            id=AcceleratorId(f"{name}-{i}"),
            cpu_cores=tuple(range(i * cores, (i + 1) * cores)),
            unhealthy="",
            island=islands[i % len(islands)],
        )
        for i in range(count)
    )
    return Node(name, accelerators, model.labels, model.taints, address=name)


def _told(
    question: Question, nodes: tuple[Node, ...], jobs: tuple[Job, ...], state: ClusterState
) -> Iterator[str]:
    if nodes:
        count = sum(len(node.accelerators) for node in nodes)
        kinds = ", ".join(sorted({each.type for node in nodes for each in node.accelerators}))
        names = ", ".join(node.id for node in nodes[:3]) + (", ..." if len(nodes) > 3 else "")
        yield f"{counted(count, 'accelerator')} ({kinds}) join on {names}"
    for name in dict.fromkeys(question.remove_nodes):
        yield f"node {name} is lost, and what runs there begins again at its last checkpoint"
    for name in dict.fromkeys(question.drain):
        yield f"node {name} is drained"
    for name, quota in question.quotas.items():
        before = state.queues[QueueName(name)].quota_accelerators
        yield f"queue {name}: quota {_quota(before)} -> {_quota(quota)}"
    if question.policy and question.policy != state.settings.policy:
        yield f"policy {state.settings.policy} -> {question.policy}"
    for job in jobs:
        yield f"{job.full_name} is submitted"


def _quota(quota: int | None) -> str:
    return "none" if quota is None else str(quota)
