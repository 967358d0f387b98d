"""A rule of a custom resource that the API server itself checks, in CEL."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.api.manifest_fields import NAME


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule at one place of a schema.

    Attributes:
        expression: In CEL, about ``self`` and, in a rule about changes, ``oldSelf``.
        message: What whoever breaks it is told; the sentence of the manifest's own rule, without
            the numbers that only a program can put in.
        field: The field below the place that the message is about, such as ``.maximum``; the place
            itself if empty.
        forbids: Whether it forbids a field or a change, rather than a value.
    """

    expression: str
    message: str
    field: str = ""
    forbids: bool = False

    def document(self) -> dict[str, str]:
        """It as an entry of ``x-kubernetes-validations``."""
        written = {"rule": self.expression, "message": self.message}
        if self.field:
            written["fieldPath"] = self.field
        return written | ({"reason": "FieldValueForbidden"} if self.forbids else {})


@dataclass(frozen=True, slots=True)
class Never:
    """What a text must never hold, where a rule in CEL would cost more than the API server allows.

    Attributes:
        pattern: What it must not match.
    """

    pattern: str


Rules = Mapping[str, tuple[Rule, ...] | Never]
"""Rules by place: ``spec.env[]`` are the entries of a list, the empty text is the whole object."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A rule of a manifest that the API server cannot check.

    Attributes:
        rule: What must hold.
        why: Why not in CEL.
        checked_by: The function or class that checks it.
    """

    rule: str
    why: str
    checked_by: str


def kept(field: str, why: str, *, compared: str = "") -> Rule:
    """A field, possibly left out, that must stay as it is.

    Args:
        field: Name of the field below the place of the rule.
        why: Why it cannot change.
        compared: What of it counts, in CEL about ``self.<field>``; all of it if empty. Left out,
            given and taken away are told apart in any case.
    """
    equal = compared or f"self.{field} == oldSelf.{field}"
    return Rule(
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || {equal})",
        f"cannot change: {why}; delete the job or submit under another name",
        f".{field}",
        forbids=True,
    )


NAMED = Rule(
    f"size(self.metadata.name) <= 63 && self.metadata.name.matches(r'''{NAME}''')",
    "wanted a name of at most 63 lower-case letters, digits and dashes, beginning and ending with "
    "a letter or digit",
)
"""Names of ours can be values of labels; those of Kubernetes may be longer and have dots."""

Schema = dict[str, Any]
"""A node of a structural schema."""
