"""Writes the custom resources: ``python -m operators.crds FOLDER``."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from operators.crds.cluster_policy import CLUSTER_POLICY
from operators.crds.definition import GROUP, Definition
from operators.crds.queue import QUEUE
from operators.crds.training_job import TRAINING_JOB

DEFINITIONS: tuple[Definition, ...] = (TRAINING_JOB, QUEUE, CLUSTER_POLICY)
_NOTE = "# Written by `make crds` from the schema of the manifests. Do not edit.\n"


def files() -> Iterator[tuple[str, str]]:
    """Name and text of each file."""
    for definition in DEFINITIONS:
        yield f"{GROUP}_{definition.plural}.yaml", _NOTE + written(definition.document())


def written(document: dict[str, Any]) -> str:
    """A document as YAML, the same on every machine."""
    return yaml.safe_dump(document, sort_keys=False, width=100, allow_unicode=True)


def write(folder: Path) -> None:
    """Writes all of them, and removes what is left there of others."""
    folder.mkdir(parents=True, exist_ok=True)
    told = dict(files())
    for stale in set(folder.glob("*.yaml")) - {folder / name for name in told}:
        stale.unlink()
    for name, text in told.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
