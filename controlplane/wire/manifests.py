"""Texts of manifests: one that comes is read, and a later one of the same job compared with the
earlier one.

The manifest's schema (``headrace.api.manifest``) has checked each field; here what this runtime
cannot honour is refused.
"""

import json
from functools import cache
from typing import Any

from pydantic import ValidationError

from controlplane.wire.violations import InvalidMessageError, Violation
from headrace.api.manifest import TrainingJob, json_schema
from headrace.api.refusal import Problem, problems_in
from headrace.api.runtime import PROCESSES, Runtime, refusals

IMMUTABLE = {
    ("model",): "weights of another model cannot be continued",
    ("script",): "another script is another job",
    ("command",): "another program is another job",
    ("data",): "the order of the data would no longer be the one it began with",
    ("training", "seed"): "initialisation and order of the data depend on it",
    ("training", "globalBatchSize"): "steps already done were counted in it",
    ("checkpoint", "store"): "its checkpoints would no longer be found",
    ("checkpoint", "startFrom"): "the job has begun already",
}
"""Fields of the spec that a job keeps for life, and why."""


@cache
def _schema() -> dict[str, Any]:
    return json_schema()


def parse_manifest(text: str, runtime: Runtime = PROCESSES) -> TrainingJob:
    """The manifest in ``text``, checked against the schema and against what can be honoured.

    Args:
        text: It.
        runtime: Where the job's ranks will run.

    Raises:
        InvalidMessageError: With every problem, by the field's path in the manifest.
    """
    try:
        manifest = TrainingJob.model_validate_json(text)
    except ValidationError as error:
        if error.errors(include_url=False)[0]["type"] == "json_invalid":
            raise InvalidMessageError(
                [
                    Violation(
                        "manifest_json", f"wanted a manifest in JSON: {error.errors()[0]['msg']}"
                    )
                ]
            ) from None
        raise InvalidMessageError(_violations(problems_in(error, _schema()))) from None
    refused = refusals(manifest, runtime)
    if refused:
        raise InvalidMessageError(_violations(refused))
    return manifest


def _violations(problems: tuple[Problem, ...]) -> list[Violation]:
    return [
        Violation(
            problem.field or "manifest",
            problem.message + (f"; did you mean {problem.nearest}?" if problem.nearest else ""),
        )
        for problem in problems
    ]


def immutable_changes(before_json: str, after_json: str) -> list[Violation]:
    """Fields that differ between two canonical manifests of a job and must not."""
    before, after = json.loads(before_json)["spec"], json.loads(after_json)["spec"]
    found = []
    for path, why in IMMUTABLE.items():
        was, wanted = _at(before, path), _at(after, path)
        if was != wanted:
            found.append(
                Violation(
                    ".".join(("spec", *path)),
                    f"cannot change from {json.dumps(was)} to {json.dumps(wanted)}: {why}; "
                    "delete the job or submit under another name",
                )
            )
    return found


def only_differs_in(before_json: str, after_json: str, allowed: frozenset[str]) -> bool:
    """Whether two canonical manifests differ at most in these fields of the spec."""
    before, after = json.loads(before_json)["spec"], json.loads(after_json)["spec"]
    keys = before.keys() | after.keys()
    return all(before.get(key) == after.get(key) for key in keys - allowed)


def _at(spec: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(spec, dict):
            return None
        spec = spec.get(key)
    return spec
