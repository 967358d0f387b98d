"""Settings that people may turn: names, types and ranges, checked before they become an event."""

import dataclasses
import difflib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import replace

from controlplane.domain.policy import PolicySettings
from controlplane.wire.violations import InvalidMessageError, Violation

RANGES: Mapping[str, tuple[float, float]] = {
    "period_seconds": (0.05, 3600.0),
    "node_grace_seconds": (1.0, 3600.0),
    "recovery_grace_seconds": (0.0, 3600.0),
    "stop_grace_seconds": (1.0, 86400.0),
    "start_grace_seconds": (0.0, 86400.0),
    "answer_seconds": (1.0, 86400.0),
    "finished_jobs_kept": (0.0, 100_000.0),
    "finished_kept_seconds": (0.0, 10 * 366 * 86400.0),
}
"""Lowest and highest value of each number."""

COUNTS = frozenset({"finished_jobs_kept"})
"""Numbers that are whole."""


def settings_to_wire(settings: PolicySettings) -> dict[str, str]:
    """Every setting by name, as a JSON value."""
    return {name: json.dumps(value) for name, value in dataclasses.asdict(settings).items()}


def changed_settings(
    settings: PolicySettings, wanted: Mapping[str, str], policies: Collection[str]
) -> PolicySettings:
    """The settings with some of them changed.

    Args:
        settings: As they are.
        wanted: New values by name, in JSON.
        policies: Names of the policies there are.

    Raises:
        InvalidMessageError: With every setting that is wrong, and the nearest right name.
    """
    known = {field.name for field in dataclasses.fields(PolicySettings)}
    violations: list[Violation] = []
    changes: dict[str, object] = {}
    for name, text in wanted.items():
        path = f"settings[{name}]"
        if name not in known:
            near = difflib.get_close_matches(name.lower().replace("-", "_"), sorted(known), n=1)
            hint = (
                f"; did you mean {near[0]}?" if near else f"; there are {', '.join(sorted(known))}"
            )
            violations.append(Violation(path, f"there is no such setting{hint}"))
            continue
        value = _parsed(text)
        problem = _problem(name, value, policies)
        if problem:
            violations.append(Violation(path, f"{problem}, got {text}"))
        else:
            changes[name] = _as_kept(name, value)
    if violations:
        raise InvalidMessageError(violations)
    return replace(settings, **changes)  # type: ignore[arg-type]


def _parsed(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        # A bare word is what people type for a text.
        return text
    return value


def _as_kept(name: str, value: object) -> object:
    """The value, which is right, in the type of its setting."""
    if name not in RANGES:
        return value
    return int(value) if name in COUNTS else float(value)  # type: ignore[call-overload, arg-type]


def _problem(name: str, value: object, policies: Collection[str]) -> str:
    if name == "policy":
        if isinstance(value, str) and value in policies:
            return ""
        near = difflib.get_close_matches(str(value), sorted(policies), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"wanted a policy of {', '.join(sorted(policies))}{hint}"
    low, high = RANGES[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"wanted a number of {low:g} to {high:g}"
    if not math.isfinite(value) or not low <= value <= high:
        return f"wanted {low:g} to {high:g}"
    if name in COUNTS and value != int(value):
        return f"wanted a whole number of {low:g} to {high:g}"
    return ""
