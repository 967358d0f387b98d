"""A custom resource: its names, its schema and what kubectl shows of it, as one document."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.api.manifest import API_VERSION
from operators.crds.rule import Elsewhere, Rules, Schema
from operators.crds.structural import structural

GROUP, _, VERSION = API_VERSION.partition("/")
CATEGORY = "headrace"
_AGE = "AGE"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of ``kubectl get``.

    Attributes:
        name: Its heading.
        path: Where its value stands.
        type: Of its values: ``string``, ``integer`` or ``date``.
        description: What it shows.
        wide: Whether only ``-o wide`` shows it.
    """

    name: str
    path: str
    type: str
    description: str
    wide: bool = False

    def document(self) -> dict[str, Any]:
        """It as an entry of ``additionalPrinterColumns``."""
        return {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.path,
            "description": self.description,
            "priority": int(self.wide),
        }


def ready_columns(why: str) -> tuple[Column, Column]:
    """Of what the control plane takes over: whether it has, and why not."""
    ready = '.status.conditions[?(@.type=="Ready")]'
    return (
        Column("READY", f"{ready}.status", "string", "Whether the control plane has it so."),
        Column("REASON", f"{ready}.message", "string", why, wide=True),
    )


@dataclass(frozen=True, slots=True)
class Definition:
    """One custom resource.

    Attributes:
        kind: As manifests have it.
        plural: As URLs have it.
        short_names: What kubectl takes for it; with a prefix, so that no other project has them.
        namespaced: Whether it lives in namespaces, not in the cluster as a whole.
        schema: The manifest's, as pydantic writes it.
        rules: What the API server checks beyond types and ranges, by place.
        elsewhere: What it cannot check, and who does.
        columns: What ``kubectl get`` shows before the age.
    """

    kind: str
    plural: str
    short_names: tuple[str, ...]
    namespaced: bool
    schema: Mapping[str, Any]
    rules: Rules
    elsewhere: tuple[Elsewhere, ...]
    columns: tuple[Column, ...]

    @property
    def name(self) -> str:
        """What the definition is called."""
        return f"{self.plural}.{GROUP}"

    def document(self) -> dict[str, Any]:
        """The CustomResourceDefinition."""
        age = Column(_AGE, ".metadata.creationTimestamp", "date", "Since it was first accepted.")
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": self.name,
                # Removing the chart must not remove what people run.
                "annotations": {"helm.sh/resource-policy": "keep"},
                "labels": {"app.kubernetes.io/part-of": CATEGORY},
            },
            "spec": {
                "group": GROUP,
                "scope": "Namespaced" if self.namespaced else "Cluster",
                "names": {
                    "kind": self.kind,
                    "listKind": f"{self.kind}List",
                    "plural": self.plural,
                    "singular": self.kind.lower(),
                    "shortNames": list(self.short_names),
                    "categories": [CATEGORY],
                },
                "versions": [
                    {
                        "name": VERSION,
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": self._structural()},
                        "subresources": {"status": {}},
                        "additionalPrinterColumns": [
                            column.document() for column in (*self.columns, age)
                        ],
                    }
                ],
            },
        }

    def _structural(self) -> Schema:
        written = structural(self.schema, self.rules)
        for name, longest in (("apiVersion", 317), ("kind", 63)):
            # Anyone who reads several versions or kinds may find another value here.
            written["properties"][name] |= {"maxLength": longest}
            written["properties"][name].pop("enum")
        # The API server has checked them before it asks for the schema.
        written["required"] = ["spec"]
        _complete_conditions(written)
        return written


def _complete_conditions(written: Schema) -> None:
    """All six fields of each condition, as every client of Kubernetes expects them."""
    condition = written["properties"]["status"]["properties"]["conditions"]["items"]
    condition["required"] = sorted(condition["properties"])
    for field in condition["properties"].values():
        field.pop("default", None)
