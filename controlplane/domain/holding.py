"""Who holds each accelerator, and which there are: found once, then carried from state to state.

To go through all that thousands of nodes have and thousands of jobs hold takes longer than the rest
of a cycle in which little happened.
"""

from collections.abc import Iterator, Mapping
from operator import is_

from controlplane.domain.ids import JobUid, NodeId
from controlplane.domain.memory import Memory, least, memories
from controlplane.domain.node import Accelerator
from controlplane.domain.record import JobRecord, NodeRecord
from controlplane.domain.snapshot import Offer, Slot, TypeMemory


def held_by_attempts(jobs: Mapping[JobUid, JobRecord]) -> dict[Slot, JobUid]:
    """Every accelerator that an attempt has not released yet, with the job; in no certain order."""
    return {slot: uid for uid, record in jobs.items() for slot in _held(record)}


def held_after(
    held: Mapping[Slot, JobUid],
    before: Mapping[JobUid, JobRecord],
    after: Mapping[JobUid, JobRecord],
) -> Mapping[Slot, JobUid]:
    """What ``held_by_attempts`` says of ``after``, made from what it said of ``before``."""
    pairs = [
        (before.get(uid), record) for uid, record in after.items() if before.get(uid) is not record
    ]
    kept = len(after) - sum(1 for old, _ in pairs if old is None)
    gone = before.keys() - after.keys() if kept < len(before) else ()
    changes = [(old, new) for old, new in pairs if not _holds_the_same(old, new)]
    if not changes and not gone:
        return held
    now = dict(held)
    for old in [old for old, _ in changes if old is not None] + [before[uid] for uid in gone]:
        for slot in _held(old):
            now.pop(slot, None)
    for _, new in changes:
        now.update(dict.fromkeys(_held(new), new.uid))
    return now


def _holds_the_same(old: JobRecord | None, new: JobRecord) -> bool:
    was = None if old is None else old.attempt
    now = new.attempt
    if was is None or now is None:
        return was is now
    return was.placement is now.placement and was.exits is now.exits and was.leaving is now.leaving


def _held(record: JobRecord) -> Iterator[Slot]:
    attempt = record.attempt
    if attempt is None:
        return
    released = {known.unit for known in attempt.exits} if attempt.exits else ()
    for unit in attempt.units:
        if unit.index not in released:
            for accelerator in unit.accelerators:
                yield unit.node, accelerator


def with_strays(
    held: Mapping[Slot, JobUid], nodes: Mapping[NodeId, NodeRecord]
) -> Mapping[Slot, JobUid]:
    """The same, and what strays hold where no attempt does."""
    strays: dict[Slot, JobUid] = {
        (node.id, accelerator): stray.uid
        for node in nodes.values()
        for stray in node.strays
        for accelerator in stray.accelerators
    }
    return {**strays, **held} if strays else held


def usable_accelerators(nodes: Mapping[NodeId, NodeRecord]) -> dict[NodeId, Offer]:
    """What each node offers, in order of registration."""
    return {name: _offered(node) for name, node in nodes.items()}


def usable_after(
    usable: Mapping[NodeId, Offer],
    before: Mapping[NodeId, NodeRecord],
    after: Mapping[NodeId, NodeRecord],
) -> Mapping[NodeId, Offer]:
    """What ``usable_accelerators`` says of ``after``, made from what it said of ``before``."""
    if len(before) == len(after) and all(map(is_, before.values(), after.values())):
        return usable
    return {
        name: usable[name] if before.get(name) is node else _offered(node)
        for name, node in after.items()
    }


def memory_by_type(usable: Mapping[NodeId, Offer]) -> dict[str, TypeMemory]:
    """What the accelerators of each type that is offered tell of their memory."""
    found: dict[str, set[Memory | None]] = {}
    for offer in usable.values():
        for kind, every in offer.items():
            found.setdefault(kind, set()).update(memories(every))
    return {kind: TypeMemory(least(each), frozenset(each)) for kind, each in found.items()}


def _offered(node: NodeRecord) -> Offer:
    if not node.usable:
        return {}
    by_type: dict[str, list[Accelerator]] = {}
    for accelerator in node.node.accelerators:
        if not accelerator.unhealthy:
            by_type.setdefault(accelerator.type, []).append(accelerator)
    return {kind: tuple(accelerators) for kind, accelerators in by_type.items()}
