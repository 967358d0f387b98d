"""``headrace policy``: the deciding policy, its settings, and which there were."""

import difflib
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

from headrace.api.generated import admin_pb2
from headrace.api.status_document import iso
from headrace.cli import views
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.output import Format, document, note, say, table
from headrace.cli.session import Session, refuse_force
from headrace.cli.tables import Column, age

_COLUMNS = (Column("SETTING"), Column("VALUE", gives_way=1))
_WIDE_COLUMNS = (
    *_COLUMNS,
    Column("DEFAULT"),
    Column("RANGE"),
    Column("MEANING", gives_way=2, wraps=True),
)
_VERSION_COLUMNS = (
    Column("VERSION", right=True),
    Column("WHEN", right=True),
    Column("WHO", gives_way=2, wraps=True),
    Column("CHANGED", gives_way=1, wraps=True),
)
_DIFFERENCE_COLUMNS = (
    Column("JOB", gives_way=1),
    Column("WOULD"),
    Column("NOW DECIDED", gives_way=2, wraps=True),
    Column("THEN", gives_way=2, wraps=True),
)
_WOULD = {
    "Starts": "start",
    "Waits": "wait",
    "Stays": "stay",
    "PutOff": "be put off",
    "Grows": "grow",
    "Shrinks": "shrink",
    "ChangesPlan": "change plan",
    "Moves": "move",
    "Differs": "differ",
}


def get_policy(session: Session, name: str, output: Format) -> None:
    """Prints the settings, or one of them with what it means.

    Raises:
        CommandError: There is no such setting.
    """
    with session.client() as client:
        answer = client.policy()
    values = {key: json.loads(value) for key, value in sorted(answer.settings.items())}
    described = {each.name: each for each in answer.descriptions}
    if name:
        if name not in values:
            raise CommandError(ExitCode.NOT_FOUND, _no_setting(name, values))
        values = {name: values[name]}
    if output in (Format.JSON, Format.YAML):
        told = [_description(each) for key, each in described.items() if key in values]
        whole = {"version": answer.version, "settings": values, "policies": [*answer.policies]}
        document(whole | {"descriptions": told}, output)
        return
    if output is Format.NAME:
        for key in values:
            say(key)
        return
    if output is Format.WIDE:
        rows = [[key, _text(value), *_range(described.get(key))] for key, value in values.items()]
        table(_WIDE_COLUMNS, rows, wide=True)
    else:
        table(_COLUMNS, [[key, _text(value)] for key, value in values.items()])
    if not name:
        say(f"policies: {', '.join(answer.policies)}")
    elif name in described and output is Format.TABLE:
        default, allowed, meaning = _range(described[name])
        say(f"{meaning} Default {default}" + (f", allowed {allowed}." if allowed else "."))


def _range(setting: admin_pb2.SettingDescription | None) -> list[str]:
    """Default, range and meaning."""
    if setting is None:
        return ["", "", ""]
    default = json.loads(setting.default_value)
    number = not isinstance(default, str)
    allowed = f"{setting.lowest:g} to {setting.highest:g}" if number else ""
    return [_text(default), allowed, setting.meaning]


def _description(setting: admin_pb2.SettingDescription) -> dict[str, Any]:
    told: dict[str, Any] = {"name": setting.name, "default": json.loads(setting.default_value)}
    if not isinstance(told["default"], str):
        told |= {"lowest": setting.lowest, "highest": setting.highest, "whole": setting.whole}
    return told | {"meaning": setting.meaning}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _no_setting(name: str, settings: dict[str, Any]) -> str:
    near = difflib.get_close_matches(name, settings, n=1)
    if not near:
        # Who forgets whose knob it is has its last part right.
        parts = {each.rpartition(".")[2]: each for each in settings}
        near = [parts[each] for each in difflib.get_close_matches(name, parts, n=1)]
    hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(settings)}"
    return f"no setting {name!r}{hint}"


def _wanted(assignments: Iterable[str]) -> dict[str, object]:
    wanted: dict[str, object] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise CommandError(ExitCode.USAGE, f"wanted name=value, got {assignment!r}")
        try:
            wanted[name] = json.loads(value)
        except ValueError:
            wanted[name] = value  # a word needs no quotes
    return wanted


def set_policy(session: Session, assignments: Sequence[str], *, force: bool) -> None:
    """Changes settings given as ``name=value``.

    Raises:
        CommandError: One is not an assignment, or names no setting.
    """
    wanted = _wanted(assignments)
    if session.writes_custom_resources:
        _set_object(session, wanted, force=force)
        return
    refuse_force(force)
    with session.client() as client:
        known = {key: json.loads(value) for key, value in client.policy().settings.items()}
        for name in wanted:
            if name not in known:
                raise CommandError(ExitCode.REFUSED, _no_setting(name, known))
        after = client.set_policy(wanted)
    for name in wanted:
        say(f"{name}: {_text(known[name])} -> {_text(after[name])}")


def _set_object(session: Session, wanted: dict[str, object], *, force: bool) -> None:
    from headrace.cli import admin_kubernetes

    with session.client() as client:
        admin_kubernetes.set_policy(session.custom_resources(), client, wanted, force=force)


def try_policy(session: Session, assignments: Sequence[str], version: int, output: Format) -> None:
    """Prints what the next decision would do differently under other settings.

    Args:
        session: Whose cluster.
        assignments: Settings given as ``name=value``.
        version: The version that is tried; 0 for the present settings with those changed.
        output: How.

    Raises:
        CommandError: One is not an assignment, or nothing could be decided under them.
    """
    with session.client() as client:
        found = client.try_policy(_wanted(assignments), version)
    if output in (Format.JSON, Format.YAML):
        told = {
            "changes": [_change(each) for each in found.changes],
            "differences": [views.plain(each) for each in found.differences],
            "refused": found.refused,
        }
        document(told, output)
    elif output is Format.NAME:
        for each in found.differences:
            say(f"job/{_name(each)}")
    else:
        _tell(found, wide=output is Format.WIDE)
    if found.refused:
        raise CommandError(ExitCode.REFUSED, found.refused)


def _tell(found: admin_pb2.TryPolicyResponse, *, wide: bool) -> None:
    for change in found.changes:
        say(f"{change.name}: {_changed(change)} (dry run)")
    if found.differences:
        rows = [
            [_name(each), _WOULD.get(each.kind, each.kind), each.before, each.after]
            for each in found.differences
        ]
        table(_DIFFERENCE_COLUMNS, rows, wide=wide)
    elif not found.refused:
        note("the next decision would be the same" if found.changes else "nothing would change")


def _name(difference: admin_pb2.PolicyDifference) -> str:
    default = difference.namespace in ("", "default")
    return difference.name if default else f"{difference.namespace}/{difference.name}"


def _changed(change: admin_pb2.SettingChange) -> str:
    return f"{_text(json.loads(change.before))} -> {_text(json.loads(change.after))}"


def _change(change: admin_pb2.SettingChange) -> dict[str, Any]:
    before, after = json.loads(change.before), json.loads(change.after)
    return {"name": change.name, "before": before, "after": after}


def history(session: Session, output: Format) -> None:
    """Prints which settings there were, newest first."""
    with session.client() as client:
        versions = client.policy_versions()[::-1]
    if output in (Format.JSON, Format.YAML):
        document(views.listed([_version(each) for each in versions], "PolicyVersion"), output)
    elif output is Format.NAME:
        for each in versions:
            say(str(each.version))
    else:
        now = time.time()
        rows = [_version_row(each, now) for each in versions]
        table(_VERSION_COLUMNS, rows, wide=output is Format.WIDE)


def _version_row(each: admin_pb2.PolicyVersion, now: float) -> list[str]:
    changed = ", ".join(f"{change.name} {_changed(change)}" for change in each.changes)
    if each.rolls_back_to:
        changed = f"as version {each.rolls_back_to}: {changed}"
    when = f"{age(now - views.moment(each.at))} ago" if each.at.seconds else ""
    return [str(each.version), when, each.who, changed]


def _version(each: admin_pb2.PolicyVersion) -> dict[str, Any]:
    told: dict[str, Any] = {"version": each.version, "at": iso(each.at), "who": each.who}
    if each.rolls_back_to:
        told["rollsBackTo"] = each.rolls_back_to
    return told | {"changes": [_change(change) for change in each.changes]}


def roll_back(session: Session, version: int, *, force: bool) -> None:
    """Sets what a version had.

    Raises:
        CommandError: The version had what is not allowed any more.
    """
    if session.writes_custom_resources:
        _roll_back_object(session, version, force=force)
        return
    refuse_force(force)
    with session.client() as client:
        answer = client.roll_back_policy(version)
    for change in answer.changes:
        say(f"{change.name}: {_changed(change)}")
    if not answer.changes:
        note(f"the settings are those of version {version} already")


def _roll_back_object(session: Session, version: int, *, force: bool) -> None:
    """What has its default is left out, so that it follows when a release changes that."""
    with session.client() as client:
        found = client.try_policy({}, version)
        defaults = {each.name: each.default_value for each in client.policy().descriptions}
    if found.refused:
        raise CommandError(ExitCode.REFUSED, found.refused)
    if not found.changes:
        # Nor is an object made where there is none.
        note(f"the settings are those of version {version} already")
        return
    wanted = {each.name: json.loads(each.after) for each in found.changes}
    for name, value in wanted.items():
        if name in defaults and value == json.loads(defaults[name]):
            wanted[name] = "default"
    _set_object(session, wanted, force=force)
