"""What the commands of ``commands_admin`` do."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headrace.api.generated import common_pb2
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.output import note, say
from headrace.cli.session import Session, refuse_force


@dataclass(frozen=True, slots=True)
class QueueWish:
    """What is to be set of a queue; None keeps what it has.

    Attributes:
        quota: Accelerators; below 0 for no limit.
        borrow: Accelerators beyond the quota; below 0 for no limit.
        submitters: Identities; ``*`` for everyone.
        namespaces: Those whose jobs it takes; ``*`` for all.
    """

    quota: int | None = None
    borrow: int | None = None
    submitters: list[str] | None = None
    namespaces: list[str] | None = None


def set_queue(session: Session, name: str, wish: QueueWish, *, force: bool) -> None:
    """Creates a queue, or changes what is given and keeps the rest."""
    if session.writes_custom_resources:
        from headrace.cli import admin_kubernetes

        admin_kubernetes.set_queue(session.custom_resources(), name, wish, force=force)
        return
    refuse_force(force)
    with session.client() as client:
        known = {each.name: each for each in client.queues()}
        queue = known.get(name, common_pb2.Queue(name=name))
        wanted = common_pb2.Queue(
            name=name,
            submitters=queue.submitters,
            namespaces=queue.namespaces,
            borrowing_accelerators=queue.borrowing_accelerators,
        )
        quota = queue.quota_accelerators if queue.HasField("quota_accelerators") else -1
        quota = quota if wish.quota is None else wish.quota
        if quota >= 0:
            wanted.quota_accelerators = quota
        if wish.borrow is not None:
            wanted.borrowing_accelerators = wish.borrow
        if wish.submitters is not None:
            del wanted.submitters[:]
            wanted.submitters.extend(each for each in wish.submitters if each != "*")
        if wish.namespaces is not None:
            del wanted.namespaces[:]
            wanted.namespaces.extend(each for each in wish.namespaces if each != "*")
        warnings = client.put_queue(wanted).warnings
    say(f"queue/{name} {'changed' if name in known else 'created'}")
    for warning in warnings:
        note(f"headrace: {warning}")


def delete_queue(session: Session, name: str) -> None:
    """Removes a queue."""
    if session.writes_custom_resources:
        from headrace.cli import apply_kubernetes

        resources = session.custom_resources()
        _, missing = apply_kubernetes.delete_objects(resources, [("Queue", "", name)])
        if missing:
            raise apply_kubernetes.objects_not_there(missing)
        return
    with session.client() as client:
        client.delete_queue(name)
    say(f"queue/{name} deleted")


def drain(session: Session, node: str, *, drained: bool) -> None:
    """Empties a node, or lets jobs run there again."""
    with session.client() as client:
        note = client.drain(node, drained=drained)
    if note:
        say(f"node/{node} is not drained any more, but takes no jobs yet: {note}")
    else:
        say(f"node/{node} {'is being drained' if drained else 'takes jobs again'}")


def remove_node(session: Session, node: str) -> None:
    """Forgets a lost node."""
    with session.client() as client:
        client.remove_node(node)
    say(f"node/{node} forgotten")


def snapshot(session: Session, target: str) -> None:
    """Writes a snapshot to a file or to stdout (``-``)."""
    with session.client() as client:
        _download(client.snapshot(), target)


def backup(session: Session, target: str, *, force: bool) -> None:
    """Writes a backup to a file or to stdout (``-``).

    Raises:
        CommandError: The file is there already, and is not to be replaced: it may be the only copy.
    """
    if target != "-" and not force and Path(target).exists():
        raise CommandError(
            ExitCode.REFUSED, f"{target} is there already; --force replaces it by the new backup"
        )
    with session.client() as client:
        _download(client.backup(), target)


def _download(pieces: Iterator[bytes], target: str) -> None:
    """Writes the pieces; a file appears, or is replaced, only when it is whole."""
    if target == "-":
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    path = Path(target)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.part")
    written = 0
    try:
        # It may hold what only its owner should read: manifests with their environments.
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            for piece in pieces:
                written += stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    except OSError as error:
        raise CommandError(
            ExitCode.FAILED, f"{path} cannot be written: {error.strerror or error}"
        ) from error
    finally:
        scratch.unlink(missing_ok=True)
    say(f"{path}: {written} bytes")
