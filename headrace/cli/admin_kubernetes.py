"""What ``headrace queue`` and ``policy`` do where they write custom resources."""

import difflib
import json
from collections.abc import Mapping
from typing import Any

from pydantic.alias_generators import to_camel

from headrace.api.manifest import API_VERSION
from headrace.api.manifest_kinds import read
from headrace.api.manifest_policy import ONLY_NAME, ClusterPolicySpec
from headrace.cli.admin import QueueWish
from headrace.cli.apply_kubernetes import change
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.output import say
from headrace.client.client import Client
from headrace.client.custom_resources import CustomResources, Object

Changes = dict[tuple[str, ...], Any]


def set_queue(resources: CustomResources, name: str, wish: QueueWish, *, force: bool) -> None:
    """Creates a queue's object, or changes what is given and keeps the rest."""
    changes: Changes = {}
    if wish.quota is not None:
        changes["quotaAccelerators",] = wish.quota if wish.quota >= 0 else None
    if wish.borrow is not None:
        changes["borrowingAccelerators",] = wish.borrow
    for field, names in (("submitters", wish.submitters), ("namespaces", wish.namespaces)):
        if names is not None:
            changes[field,] = [each for each in names if each != "*"]
    found = resources.get("Queue", name)
    _check("Queue", name, changes)
    change(resources, found or _new("Queue", name), changes, force=force)
    say(f"queue/{name} {'changed' if found else 'created'}")


def set_policy(
    resources: CustomResources, client: Client, wanted: Mapping[str, object], *, force: bool
) -> None:
    """Changes settings in the policy's object.

    The object says all of them: what it leaves out has its default. So a new one begins with what
    is in force at the control plane.

    Args:
        resources: Where.
        client: Of the control plane, which is asked if there is no object yet.
        wanted: Values by the control plane's names; ``default`` leaves a setting out.
        force: Takes over settings that others have set to something else.

    Raises:
        CommandError: A setting does not exist, or cannot be so.
    """
    known = ClusterPolicySpec().settings()
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            raise CommandError(ExitCode.REFUSED, f"no setting {name!r}{hint}")
    found = resources.get("ClusterPolicy", ONLY_NAME)
    settings = dict(wanted) if found is not None else _in_force(client) | dict(wanted)
    changes = {_path(name): _value(value) for name, value in settings.items()}
    _check("ClusterPolicy", ONLY_NAME, changes)
    change(resources, found or _new("ClusterPolicy", ONLY_NAME), changes, force=force)
    for name, value in wanted.items():
        before: Any = (found or {}).get("spec", {})
        for key in _path(name):
            before = before.get(key, {})
        say(f"{name}: {_text(before)} -> {_text(_value(value))}")


def _in_force(client: Client) -> dict[str, object]:
    """The settings that are not at their default."""
    answer = client.policy()
    defaults = {each.name: json.loads(each.default_value) for each in answer.descriptions}
    values = {name: json.loads(value) for name, value in answer.settings.items()}
    return {name: value for name, value in values.items() if value != defaults.get(name)}


def _path(setting: str) -> tuple[str, ...]:
    """``rubick.cool_down_seconds`` below ``spec``."""
    return tuple(to_camel(part) for part in setting.split("."))


def _value(value: object) -> object:
    return None if value == "default" else value


def _text(value: object) -> str:
    if value in (None, {}):
        return "default"
    return value if isinstance(value, str) else json.dumps(value)


def _new(kind: str, name: str) -> Object:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": {}}


def _check(kind: str, name: str, changes: Changes) -> None:
    """What is wrong with the values by themselves, in the manifests' words.

    Raises:
        CommandError: Something is.
    """
    document = _new(kind, name)
    for path, value in changes.items():
        part = document["spec"]
        for key in path[:-1]:
            part = part.setdefault(key, {})
        if value is not None:
            part[path[-1]] = value
    problems = read(document)
    if isinstance(problems, tuple):
        raise CommandError(ExitCode.REFUSED, "\n".join(map(str, problems)))
