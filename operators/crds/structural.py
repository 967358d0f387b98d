"""JSON Schema, as pydantic writes it -> the structural schema that a custom resource needs.

Structural means that each node says its type, references are written out, and what may be null is
optional instead. Fields that a schema does not know are pruned, or refused where the client asks
for that, so ``additionalProperties: false`` need not be said.
"""

from collections.abc import Mapping
from typing import Any

from operators.crds.rule import Never, Rules, Schema

SETS = frozenset({"submitters", "namespaces"})
"""Lists in which order means nothing and nothing stands twice."""
LISTS_BY_KEY = {"env": "name", "volumes": "name", "conditions": "type"}
"""Lists whose entries have names: the API server keeps these apart, and appliers can each have
their own entries. Every other list belongs to one applier as a whole."""

_KEPT = (
    *("type", "description", "enum", "pattern", "format", "default", "minLength", "maxLength"),
    *("minItems", "maxItems", "maxProperties", "minimum", "maximum"),
)
_INT_OR_STRING = "x-kubernetes-int-or-string"
_LONGEST_QUANTITY = 32


def structural(schema: Mapping[str, Any], rules: Rules) -> Schema:
    """The structural schema of an object without its ``metadata``, which is Kubernetes' own.

    Args:
        schema: As pydantic writes it, with ``$defs``.
        rules: What the API server shall check, by place.

    Raises:
        LookupError: A rule is about a place that the schema does not have.
    """
    places: dict[str, Schema] = {}
    written = _Writer(schema, places).node(schema, "")
    if missing := rules.keys() - places.keys():
        raise LookupError(f"wanted rules about places of the schema, got {sorted(missing)}")
    for place, of_place in rules.items():
        if isinstance(of_place, Never):
            places[place]["not"] = {"pattern": of_place.pattern}
        else:
            places[place]["x-kubernetes-validations"] = [rule.document() for rule in of_place]
    return written


class _Writer:
    """Walks a schema, and remembers every node by its place."""

    def __init__(self, schema: Mapping[str, Any], places: dict[str, Schema]) -> None:
        self._schema = schema
        self._places = places

    def node(self, given: Mapping[str, Any], place: str) -> Schema:
        """One node with all that is below it."""
        meant = self._meant(given)
        written: Schema = {}
        for key in _KEPT:
            if key in meant and not (key == "default" and meant[key] is None):
                written[key] = meant[key]
        _write_kind(meant, written)
        if "description" in written:
            written["description"] = " ".join(written["description"].split())
        if "default" in written:
            written["default"] = _without_null(written["default"])
        if "items" in meant:
            name = place.rpartition(".")[2]
            written |= _kind_of_list(name)
            written["items"] = self.node(meant["items"], f"{place}[]")
        if "properties" in meant:
            self._write_fields(meant, written, place)
        elif meant.get("type") == "object":
            written["additionalProperties"] = self.node(_values(meant), f"{place}{{}}")
        self._places[place] = written
        return written

    def _write_fields(self, meant: Mapping[str, Any], written: Schema, place: str) -> None:
        prefix = f"{place}." if place else ""
        names = [name for name in meant["properties"] if place or name != "metadata"]
        written["properties"] = {
            name: self.node(meant["properties"][name], f"{prefix}{name}") for name in names
        }
        if required := [name for name in meant.get("required", ()) if name in names]:
            written["required"] = required

    def _meant(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """The node with what it refers to; what it says itself comes first."""
        if "$ref" in node:
            there = self._schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
            return self._meant(there) | {key: node[key] for key in node if key != "$ref"}
        if "anyOf" in node and _INT_OR_STRING not in node:
            option = next(each for each in node["anyOf"] if each.get("type") != "null")
            return self._meant(option) | {key: node[key] for key in node if key != "anyOf"}
        return dict(node)


def _write_kind(meant: Mapping[str, Any], written: Schema) -> None:
    """What a value is, where Kubernetes writes it another way."""
    if "const" in meant:
        written["enum"] = [meant["const"]]
    if _INT_OR_STRING in meant:
        written |= {
            _INT_OR_STRING: True,
            "anyOf": meant["anyOf"],
            "maxLength": _LONGEST_QUANTITY,
            "minimum": 0,
        }
    if meant.get("type") == "integer":
        written["format"] = "int64"
    for bound, step in (("minimum", 1), ("maximum", -1)):
        exclusive = f"exclusive{bound.capitalize()}"
        if exclusive in meant and meant["type"] == "integer":
            written[bound] = meant[exclusive] + step
        elif exclusive in meant:
            written |= {bound: meant[exclusive], exclusive: True}


def _kind_of_list(name: str) -> Schema:
    if name in SETS:
        return {"x-kubernetes-list-type": "set"}
    key = LISTS_BY_KEY.get(name)
    if key is None:
        return {"x-kubernetes-list-type": "atomic"}
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


def _values(meant: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a map's values; that of its keys is a rule's."""
    if "patternProperties" in meant:
        (values,) = meant["patternProperties"].values()
        return dict(values)
    return dict(meant["additionalProperties"])


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(each) for key, each in value.items() if each is not None}
    return value
