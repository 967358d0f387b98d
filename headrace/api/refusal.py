"""Why a manifest is refused: each problem with its path, what was wanted, what came, what is near.

Kept apart from the schema because the CLI (which adds file and line), the control plane (which
names the field in its error details) and later the admission webhook all tell the same sentences.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from headrace.api.credentials import without_passwords
from headrace.api.manifest_fields import NAME, PATTERNS_IN_WORDS, nearest_name

_LONGEST_VALUE_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a manifest.

    Attributes:
        path: Keys and indices that lead to the place.
        message: What was wanted and what came, as one clause.
        nearest: The right name or value that was probably meant; empty if none is near.
    """

    path: tuple[str | int, ...]
    message: str
    nearest: str = ""

    @property
    def field(self) -> str:
        """The path as people write it, e.g. ``spec.env[0].name``."""
        text = ""
        for step in self.path:
            text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
        return text

    def __str__(self) -> str:
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.field or 'document'}: {self.message}{hint}"


def problems_in(error: ValidationError, schema: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Every problem that a failed validation found, in the order of the document."""
    return tuple(
        _problem(found, schema)
        for found in error.errors(include_url=False, include_context=True, include_input=True)
        if not _counts_only_right_entries(found)
    )


def _counts_only_right_entries(found: Mapping[str, Any]) -> bool:
    """Whether a list is called too short only because entries in it are wrong, as is told too."""
    return found["type"] == "too_short" and bool(len(found["input"]) >= found["ctx"]["min_length"])


def _problem(found: Mapping[str, Any], schema: Mapping[str, Any]) -> Problem:
    path = tuple(step for step in found["loc"] if step != "[key]")
    context = found.get("ctx", {})
    kind, came = found["type"], found["input"]
    match kind:
        case "rule":
            at = (int(key) if key.isdigit() else key for key in context["at"].split("."))
            return Problem((*path, *at), context["sentence"])
        case "extra_forbidden":
            known = _properties(schema, path[:-1])
            return Problem(
                path,
                f"is not a field here; wanted one of {', '.join(sorted(known))}",
                _nearest_field(str(path[-1]), known, schema),
            )
        case "missing":
            described = _properties(schema, path[:-1]).get(str(path[-1]), {}).get("description", "")
            return Problem(path, f"is required: {described}" if described else "is required")
        case "literal_error":
            wanted = context["expected"]
            choices = [choice.strip(" '") for choice in wanted.replace(" or ", ",").split(",")]
            near = difflib.get_close_matches(str(came), choices, n=1, cutoff=0.5)
            return Problem(path, f"wanted {wanted}, got {_shown(came)}", near[0] if near else "")
        case "password" | "plan":
            return Problem(path, found["msg"])
        case "string_pattern_mismatch":
            return _misformed(path, context["pattern"], came)
        case "quantity":
            return Problem(path, f"{found['msg']}, got {_shown(came)}")
    wanted = _WANTED.get(kind, found["msg"]).format_map(_Context(context))
    return Problem(path, f"{wanted}, got {_shown(came)}")


def _misformed(path: tuple[str | int, ...], pattern: str, came: str) -> Problem:
    wanted = PATTERNS_IN_WORDS.get(pattern, f"text that matches {pattern}")
    # What is not repeated because of a password is not put right either.
    is_open = pattern == NAME and without_passwords(came) == came
    near = nearest_name(came) if is_open else ""
    return Problem(path, f"wanted {wanted}, got {_shown(came)}", near)


_WANTED = {
    "int_type": "wanted a whole number",
    "int_parsing": "wanted a whole number",
    "int_from_float": "wanted a whole number",
    "float_type": "wanted a number",
    "float_parsing": "wanted a number",
    "string_type": "wanted text (put it in quotes)",
    "bool_type": "wanted true or false",
    "dict_type": "wanted a mapping",
    "model_type": "wanted a mapping",
    "tuple_type": "wanted a list",
    "finite_number": "wanted a finite number",
    "greater_than": "wanted more than {gt}",
    "greater_than_equal": "wanted at least {ge}",
    "less_than": "wanted less than {lt}",
    "less_than_equal": "wanted at most {le}",
    "string_too_short": "wanted at least {min_length} characters",
    "string_too_long": "wanted at most {max_length} characters",
    "too_short": "wanted at least {min_length} entries",
    "too_long": "wanted at most {max_length} entries",
}


class _Context(dict[str, Any]):
    """Keeps a missing number from hiding the sentence that wanted to name it."""

    def __missing__(self, key: str) -> str:
        return "?"


def _shown(value: object) -> str:
    """A value as the author wrote it, without passwords, cut to a readable length."""
    text = without_passwords(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= _LONGEST_VALUE_SHOWN else text[: _LONGEST_VALUE_SHOWN - 3] + "..."


def _nearest_field(name: str, known: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """The field that was probably meant: here, else the same name elsewhere in the schema."""
    lowered = {candidate.lower(): candidate for candidate in known}
    plain = name.replace("_", "").replace("-", "").lower()
    near = difflib.get_close_matches(plain, lowered, n=1, cutoff=0.6)
    if near:
        return lowered[near[0]]
    elsewhere = [path for path in field_paths(schema) if path.rsplit(".", 1)[-1] == name]
    return elsewhere[0] if elsewhere else ""


def _properties(schema: Mapping[str, Any], path: Sequence[str | int]) -> Mapping[str, Any]:
    """The fields that the schema knows below ``path``."""
    here = _resolved(schema, schema)
    for step in path:
        if isinstance(step, int):
            here = _resolved(here.get("items", {}), schema)
        else:
            here = _resolved(here.get("properties", {}).get(step, {}), schema)
    fields: Mapping[str, Any] = here.get("properties", {})
    return fields


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follows references and the not-null branch of an optional field."""
    while True:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        elif "anyOf" in node and "x-kubernetes-int-or-string" not in node:
            node = next(option for option in node["anyOf"] if option.get("type") != "null")
        else:
            return node


def field_paths(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """Every field of the schema as a dotted path; entries of lists are written ``name[]``."""
    found: list[str] = []

    def walk(node: Mapping[str, Any], prefix: str) -> None:
        node = _resolved(node, schema)
        if node.get("type") == "array":
            walk(node["items"], f"{prefix}[]")
            return
        for name, child in node.get("properties", {}).items():
            path = f"{prefix}.{name}" if prefix else name
            found.append(path)
            walk(child, path)

    walk(schema, "")
    return tuple(found)
