"""Settings that people may turn: names, types and ranges, checked before they become an event."""

import dataclasses
import difflib
import json
import math
from collections.abc import Iterator, Mapping

from controlplane.domain.knob import Knob
from controlplane.domain.policy import Policy, PolicySettings, TunablePolicy
from controlplane.wire.violations import InvalidMessageError, Violation
from headrace.api.generated import admin_pb2

_POLICY = "policy"
_DEFAULT = "default"
"""What takes a number back to its default."""

_DEFAULTS = PolicySettings()


def _own(name: str, low: float, high: float, meaning: str) -> Knob:
    default = getattr(_DEFAULTS, name)
    return Knob(name, default, low, high, meaning, whole=isinstance(default, int))


OWN: tuple[Knob, ...] = (
    _own(
        "period_seconds",
        0.05,
        3600.0,
        "Longest time between two decisions; what happens wakes the loop earlier.",
    ),
    _own("node_grace_seconds", 1.0, 3600.0, "Silence after which a node counts as lost."),
    _own(
        "recovery_grace_seconds",
        0.0,
        3600.0,
        "After a start of the control plane, how long it waits for known nodes to speak.",
    ),
    _own(
        "stop_grace_seconds",
        1.0,
        86_400.0,
        "How long a planned stop may take before the attempt is ended.",
    ),
    _own(
        "start_grace_seconds",
        0.0,
        86_400.0,
        "How long an attempt may take to report its first step before it counts as failed; 0 for "
        "no limit.",
    ),
    _own(
        "answer_seconds",
        1.0,
        86_400.0,
        "How long ranks may take to tell of a change of plan before it is made by a restart; slow "
        "steps and those that are to join make it longer.",
    ),
    _own(
        "finished_jobs_kept",
        0,
        100_000,
        "Most finished jobs that are remembered; the one that finished first goes first.",
    ),
    _own(
        "finished_kept_seconds",
        0.0,
        10 * 366 * 86_400.0,
        "How long a finished job is remembered whose manifest does not say; 0 for no limit but "
        "the number.",
    ),
)
"""The numbers that are the control plane's own, whoever decides."""


class SettingsBook:
    """All settings there are: the control plane's own and the knobs of its policies."""

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        """Asks the policies for theirs."""
        self.policies = tuple(sorted(policies))
        tunable = (each for each in policies.values() if isinstance(each, TunablePolicy))
        knobs = (knob for policy in tunable for knob in policy.knobs)
        self._own = {knob.name: knob for knob in OWN}
        self._knobs = self._own | {knob.name: knob for knob in knobs}

    def values(self, settings: PolicySettings) -> dict[str, str | float]:
        """Every setting by name."""
        turned = dict(settings.knobs)
        found: dict[str, str | float] = {_POLICY: settings.policy}
        for name, knob in self._knobs.items():
            found[name] = getattr(settings, name) if name in self._own else knob.value_in(turned)
        return found

    def to_wire(self, settings: PolicySettings) -> dict[str, str]:
        """Every setting by name, as a JSON value."""
        return {name: json.dumps(value) for name, value in self.values(settings).items()}

    def descriptions(self) -> Iterator[admin_pb2.SettingDescription]:
        """What people may set, and what it does."""
        yield admin_pb2.SettingDescription(
            name=_POLICY,
            default_value=json.dumps(_DEFAULTS.policy),
            meaning=f"Which policy decides: {', '.join(self.policies)}.",
        )
        for knob in self._knobs.values():
            yield admin_pb2.SettingDescription(
                name=knob.name,
                default_value=json.dumps(knob.default),
                lowest=knob.low,
                highest=knob.high,
                whole=knob.whole,
                meaning=knob.meaning,
            )

    def changes(
        self, before: PolicySettings, after: PolicySettings
    ) -> Iterator[admin_pb2.SettingChange]:
        """The settings that are not the same in both."""
        old, new = self.to_wire(before), self.to_wire(after)
        for name, value in new.items():
            if old[name] != value:
                yield admin_pb2.SettingChange(name=name, before=old[name], after=value)

    def as_were(self, settings: PolicySettings, then: PolicySettings) -> PolicySettings:
        """The settings as they were at some time, as far as they exist today.

        Args:
            settings: As they are.
            then: As they were.

        Raises:
            InvalidMessageError: They are not allowed any more.
        """
        turned = dict(then.knobs)
        values = self.to_wire(then)
        unset = (name for name in self._knobs if name not in self._own and name not in turned)
        return self.changed(settings, values | dict.fromkeys(unset, json.dumps(_DEFAULT)))

    def changed(self, settings: PolicySettings, wanted: Mapping[str, str]) -> PolicySettings:
        """The settings with some of them changed.

        Args:
            settings: As they are.
            wanted: New values by name, in JSON.

        Raises:
            InvalidMessageError: With every setting that is wrong, and the nearest right name.
        """
        violations: list[Violation] = []
        changes: dict[str, object] = {}
        turned = dict(settings.knobs)
        for name, text in wanted.items():
            path, value = f"settings[{name}]", _parsed(text)
            problem = self._problem(name, value)
            if problem:
                violations.append(Violation(path, problem))
            elif name == _POLICY:
                changes[name] = value
            elif name in self._own:
                changes[name] = _as_kept(self._own[name], value)
            elif value == _DEFAULT:
                turned.pop(name, None)
            else:
                turned[name] = _as_kept(self._knobs[name], value)
        if violations:
            raise InvalidMessageError(violations)
        knobs = tuple(sorted(turned.items()))
        return dataclasses.replace(settings, knobs=knobs, **changes)  # type: ignore[arg-type]

    def _problem(self, name: str, value: object) -> str:
        """What is wrong with the value, or with the name; empty if nothing is."""
        if name == _POLICY:
            return self._problem_of_policy(value)
        knob = self._knobs.get(name)
        if knob is None:
            return f"there is no such setting{self._hint(name)}"
        if value == _DEFAULT:
            return ""
        wanted, got = f"{knob.low:g} to {knob.high:g}", json.dumps(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"wanted a number of {wanted}, got {got}"
        if not math.isfinite(value) or not knob.low <= value <= knob.high:
            return f"wanted {wanted}, got {got}"
        if knob.whole and value != int(value):
            return f"wanted a whole number of {wanted}, got {got}"
        return ""

    def _problem_of_policy(self, value: object) -> str:
        if isinstance(value, str) and value in self.policies:
            return ""
        near = difflib.get_close_matches(str(value), self.policies, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        names = ", ".join(self.policies)
        return f"wanted a policy of {names}{hint}, got {json.dumps(value)}"

    def _hint(self, name: str) -> str:
        names = (_POLICY, *self._knobs)
        asked = name.lower().replace("-", "_")
        # Who forgets whose knob it is has its last part right.
        parts = {each.rpartition(".")[2]: each for each in reversed(names)}
        near = difflib.get_close_matches(asked, names, n=1) or [
            parts[each] for each in difflib.get_close_matches(asked, parts, n=1)
        ]
        return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"


def _parsed(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        # A bare word is what people type for a text.
        return text
    return value


def _as_kept(knob: Knob, value: object) -> float:
    """The value, which is right, in the type of its setting."""
    number = value if isinstance(value, int | float) else knob.default
    return int(number) if knob.whole else float(number)
