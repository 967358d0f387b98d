"""What the commands of ``commands_admin`` do."""

import difflib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace.api.generated import common_pb2
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.output import Format, document, say, table
from headrace.cli.session import Session
from headrace.cli.tables import Column

_SETTING_COLUMNS = (Column("SETTING"), Column("VALUE", gives_way=1))


def set_queue(session: Session, name: str, quota: int | None, submitters: list[str] | None) -> None:
    """Creates a queue, or changes what is given and keeps the rest."""
    with session.client() as client:
        known = {each.name: each for each in client.queues()}
        queue = known.get(name, common_pb2.Queue(name=name))
        wanted = common_pb2.Queue(name=name, submitters=queue.submitters)
        if queue.HasField("quota_accelerators"):
            wanted.quota_accelerators = queue.quota_accelerators
        if quota is not None:
            if quota < 0:
                wanted.ClearField("quota_accelerators")
            else:
                wanted.quota_accelerators = quota
        if submitters is not None:
            del wanted.submitters[:]
            wanted.submitters.extend(each for each in submitters if each != "*")
        client.put_queue(wanted)
    say(f"queue/{name} {'changed' if name in known else 'created'}")


def delete_queue(session: Session, name: str) -> None:
    """Removes a queue."""
    with session.client() as client:
        client.delete_queue(name)
    say(f"queue/{name} deleted")


def get_policy(session: Session, name: str, output: Format) -> None:
    """Prints the settings, or one of them.

    Raises:
        CommandError: There is no such setting.
    """
    with session.client() as client:
        answer = client.policy()
    settings = {key: json.loads(value) for key, value in sorted(answer.settings.items())}
    if name:
        if name not in settings:
            raise CommandError(ExitCode.NOT_FOUND, _no_setting(name, settings))
        settings = {name: settings[name]}
    if output in (Format.JSON, Format.YAML):
        document({"settings": settings, "policies": list(answer.policies)}, output)
        return
    if output is Format.NAME:
        for key in settings:
            say(key)
        return
    table(_SETTING_COLUMNS, [[key, _text(value)] for key, value in settings.items()])
    if not name:
        say(f"policies: {', '.join(answer.policies)}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _no_setting(name: str, settings: dict[str, Any]) -> str:
    near = difflib.get_close_matches(name, settings, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(settings)}"
    return f"no setting {name!r}{hint}"


def set_policy(session: Session, assignments: list[str]) -> None:
    """Changes settings given as ``name=value``.

    Raises:
        CommandError: One is not an assignment, or names no setting.
    """
    wanted: dict[str, object] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise CommandError(ExitCode.USAGE, f"wanted name=value, got {assignment!r}")
        try:
            wanted[name] = json.loads(value)
        except ValueError:
            wanted[name] = value  # a word needs no quotes
    with session.client() as client:
        known = {key: json.loads(value) for key, value in client.policy().settings.items()}
        for name in wanted:
            if name not in known:
                raise CommandError(ExitCode.REFUSED, _no_setting(name, known))
        after = client.set_policy(wanted)
    for name in wanted:
        say(f"{name}: {_text(known[name])} -> {_text(after[name])}")


def drain(session: Session, node: str, *, drained: bool) -> None:
    """Empties a node, or lets jobs run there again."""
    with session.client() as client:
        client.drain(node, drained=drained)
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
