"""Writes the chart's README.md: its values with what the comments in values.yaml say of them.

A comment that begins with ``# --`` describes the next key, and goes on in the comment lines below
it, as helm-docs has it. ``python deploy/helm/generate_readme.py`` writes the file.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "headrace"
_KEY = re.compile(r"^( *)([\w-]+):")
_DESCRIPTION = re.compile(r"^ *# -- (.+)$")
_MORE = re.compile(r"^ *# (.+)$")
_INDENT_SPACES = 2

_HEAD = """# {name}

{description}

Chart {version}, for Kubernetes {kube}. How it is installed, upgraded and taken away, and how
its certificates work: `docs/operations/install.md`, `docs/operations/upgrade.md` and
`docs/operations/certificates.md`.

## Values

This table is made of `values.yaml` by `make chart-docs`. A value that is not in it is refused
(`values.schema.json`).

| value | default | |
|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Value:
    """One documented value.

    Attributes:
        path: Its keys from the top, joined by dots.
        default: What it is when nobody says otherwise.
        description: What it does.
    """

    path: str
    default: Any
    description: str


def documented(text: str) -> Iterator[Value]:
    """The values that a comment describes, in the order of the file."""
    values = yaml.safe_load(text)
    above: list[str] = []
    description = ""
    for line in text.splitlines():
        if found := _DESCRIPTION.match(line):
            description = found[1]
        elif description and (found := _MORE.match(line)):
            description += " " + found[1]
        elif found := _KEY.match(line):
            depth = len(found[1]) // _INDENT_SPACES
            above = [*above[:depth], found[2]]
            if description:
                yield Value(".".join(above), _at(values, above), description)
            description = ""
        else:
            description = ""


def leaves(values: Any, described: frozenset[str], path: str = "") -> Iterator[str]:
    """Paths of all values; below one that is described nothing is looked for."""
    if path in described or not isinstance(values, dict) or not values:
        yield path
        return
    for key, value in values.items():
        yield from leaves(value, described, f"{path}.{key}" if path else key)


def readme(chart: Path) -> str:
    """The whole file."""
    about = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    head = _HEAD.format(
        name=about["name"],
        description=about["description"],
        version=about["version"],
        kube=about["kubeVersion"].replace(">=", "").replace("-0", "") + " and newer",
    )
    rows = documented((chart / "values.yaml").read_text(encoding="utf-8"))
    return head + "".join(
        f"| `{row.path}` | `{json.dumps(row.default)}` | {row.description} |\n" for row in rows
    )


def _at(values: Any, keys: list[str]) -> Any:
    for key in keys:
        values = values[key]
    return values


def main() -> int:
    """Writes it."""
    (CHART / "README.md").write_text(readme(CHART), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
