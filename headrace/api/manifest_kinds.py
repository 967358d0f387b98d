"""Every kind of manifest that there is, and which of them a document is."""

import difflib
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import ValidationError

from headrace.api.manifest import TrainingJob, parse
from headrace.api.manifest_policy import ClusterPolicy
from headrace.api.manifest_queue import Queue
from headrace.api.refusal import Problem, problems_in

ClusterObject = Queue | ClusterPolicy
"""What belongs to a cluster as a whole."""
_OF_CLUSTER: Mapping[str, type[Queue | ClusterPolicy]] = {
    "Queue": Queue,
    "ClusterPolicy": ClusterPolicy,
}
KINDS = ("TrainingJob", *_OF_CLUSTER)


@cache
def schema_of(kind: str) -> dict[str, Any]:
    """The schema of a kind of the cluster as JSON Schema, with ``$defs``."""
    return _OF_CLUSTER[kind].model_json_schema(by_alias=True)


def read(document: object) -> TrainingJob | ClusterObject | tuple[Problem, ...]:
    """The object that a document describes, or everything that is wrong with it."""
    kind = document.get("kind") if isinstance(document, Mapping) else None
    if kind in (None, "TrainingJob"):
        return parse(document)
    if kind not in _OF_CLUSTER:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        *others, last = KINDS
        sentence = f"wanted {', '.join(others)} or {last}, got {kind!r}"
        return (Problem(("kind",), sentence, near[0] if near else ""),)
    try:
        return _OF_CLUSTER[kind].model_validate(document)
    except ValidationError as error:
        return problems_in(error, schema_of(kind))
