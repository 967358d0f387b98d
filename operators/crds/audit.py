"""What other projects' custom resources were counted by, counted of any: ``python -m
operators.crds.audit FILE...`` prints one row of the table in docs/kubernetes/audits.md.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Count:
    """Of several definitions; only the version that is stored counts.

    Attributes:
        definitions: How many there are.
        columns: Columns of ``kubectl get`` of each, on average.
        with_status: Definitions with the subresource.
        with_scale: Definitions with the subresource.
        with_short_names: Definitions that have any.
        with_categories: Definitions that have any.
        with_condition_map: Definitions whose conditions are a map by type.
        with_observed_generation: Definitions that tell it, in the status or in each condition.
        rules: Rules in CEL.
        defaults: Fields with a default.
        unknown_kept: Parts of which fields are kept that the schema does not know.
        described: Share of fields with a description.
    """

    definitions: int
    columns: float
    with_status: int
    with_scale: int
    with_short_names: int
    with_categories: int
    with_condition_map: int
    with_observed_generation: int
    rules: int
    defaults: int
    unknown_kept: int
    described: float

    def row(self, name: str) -> str:
        """It as a row of Markdown."""

        def of_all(count: int) -> str:
            return f"{count}/{self.definitions}" if count else "0"

        cells = (
            name,
            str(self.definitions),
            f"{self.columns:.1f}",
            of_all(self.with_status),
            of_all(self.with_scale),
            of_all(self.with_short_names),
            of_all(self.with_categories),
            of_all(self.with_condition_map),
            of_all(self.with_observed_generation),
            str(self.rules),
            str(self.defaults),
            str(self.unknown_kept),
            f"{self.described:.0%}".replace("%", " %"),
        )
        return f"| {' | '.join(cells)} |"


def counted(documents: Sequence[Node]) -> Count:
    """Counts CustomResourceDefinitions."""
    of_each = (one["spec"]["versions"] for one in documents)
    stored = [next(each for each in versions if each["storage"]) for versions in of_each]
    schemas = [version["schema"]["openAPIV3Schema"] for version in stored]
    nodes = [node for schema in schemas for _, node in nodes_of(schema)]
    fields = [field for node in nodes for field in node.get("properties", {}).values()]
    typed = [field for field in fields if "type" in field]
    names = [one["spec"]["names"] for one in documents]
    columns = [version.get("additionalPrinterColumns", ()) for version in stored]
    return Count(
        definitions=len(documents),
        columns=sum(map(len, columns)) / len(documents),
        with_status=sum("status" in version.get("subresources", {}) for version in stored),
        with_scale=sum("scale" in version.get("subresources", {}) for version in stored),
        with_short_names=sum(bool(each.get("shortNames")) for each in names),
        with_categories=sum(bool(each.get("categories")) for each in names),
        with_condition_map=sum(map(_has_condition_map, schemas)),
        with_observed_generation=sum(map(_observes_generation, schemas)),
        rules=sum(len(node.get("x-kubernetes-validations", ())) for node in nodes),
        defaults=sum("default" in node and "type" in node for node in nodes),
        unknown_kept=sum(bool(n.get("x-kubernetes-preserve-unknown-fields")) for n in nodes),
        described=sum(bool(each.get("description")) for each in typed) / len(typed),
    )


def nodes_of(schema: Node, place: str = "") -> Iterator[tuple[str, Node]]:
    """Every node of a schema with its place; of ``metadata``, which is Kubernetes' own, none."""
    yield place, schema
    for name, field in schema.get("properties", {}).items():
        if place or name != "metadata":
            yield from nodes_of(field, f"{place}.{name}" if place else name)
    if "items" in schema:
        yield from nodes_of(schema["items"], f"{place}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes_of(schema["additionalProperties"], f"{place}{{}}")


def _status(schema: Node) -> Node:
    found: Node = schema["properties"].get("status", {}).get("properties", {})
    return found


def _has_condition_map(schema: Node) -> bool:
    conditions: Node = _status(schema).get("conditions", {})
    return bool(conditions.get("x-kubernetes-list-type") == "map")


def _observes_generation(schema: Node) -> bool:
    status = _status(schema)
    condition = status.get("conditions", {}).get("items", {}).get("properties", {})
    return "observedGeneration" in status or "observedGeneration" in condition


def definitions_in(files: Sequence[Path]) -> list[Node]:
    """The CustomResourceDefinitions of these files."""
    documents = [one for file in files for one in yaml.safe_load_all(file.read_text("utf-8"))]
    return [one for one in documents if one and one["kind"] == "CustomResourceDefinition"]


if __name__ == "__main__":
    count = counted(definitions_in([Path(name) for name in sys.argv[1:]]))
    sys.stdout.write(count.row("Headrace") + "\n")
