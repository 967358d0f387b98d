"""The state as JSON in pieces, without anything that may be secret.

A large state takes seconds to write, and so do the many manifests in it to redact. Each part is
small, so that a thread which makes them lets the event loop have its turn in between.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from controlplane.domain.codec import dump
from controlplane.engine.state import ClusterState
from controlplane.wire import redact

PIECE_BYTES = 256 * 1024


def pieces(state: ClusterState) -> Iterator[bytes]:
    """Pieces of about ``PIECE_BYTES``, which together are what the codec makes of the state but
    for the redacted parts.
    """
    # A job's record and its attempt hold a manifest each, and many jobs have the same.
    redacted = functools.cache(redact.manifest)
    gathered: list[bytes] = []
    size = 0
    for part in _parts(state):
        gathered.append(redact.manifests_in(part, redacted).encode())
        size += len(gathered[-1])
        if size >= PIECE_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)


def _parts(state: ClusterState) -> Iterator[str]:
    """The state's JSON, an entry of its maps at a time."""
    kinds = get_type_hints(ClusterState)
    before = "{"
    for field in dataclasses.fields(state):
        yield f"{before}{json.dumps(field.name)}:"
        before = ","
        value: Any = getattr(state, field.name)
        if isinstance(value, dict):
            yield from _entries(value, get_args(kinds[field.name])[1])
        else:
            yield dump(value, kinds[field.name])
    yield "}"


def _entries(entries: dict[str, Any], kind: Any) -> Iterator[str]:
    before = "{"
    for key, entry in entries.items():
        yield f"{before}{json.dumps(key)}:{dump(entry, kind)}"
        before = ","
    yield "}" if entries else "{}"
