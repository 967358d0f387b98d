"""The chart as its tests see it: rendered by the real helm, and taken apart."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.architecture.source_tree import ROOT
from tests.kubernetes.programs import program

CHART = ROOT / "deploy" / "helm" / "headrace"
VALUES = ROOT / "tests" / "kubernetes" / "chart_values"
WAYS = ("default", *sorted(file.stem for file in VALUES.glob("*.yaml")))
"""Ways to install it: a file of values each, and none at all."""
EVERY_API = ("cert-manager.io/v1", "monitoring.coreos.com/v1")

Object = dict[str, Any]


@dataclass(frozen=True)
class Container:
    """One container of a pod template, and whose it is."""

    component: str
    pod: Object
    spec: Object

    @property
    def name(self) -> str:
        return f"{self.component}/{self.spec['name']}"

    @property
    def arguments(self) -> list[str]:
        return [str(word) for word in self.spec.get("args", ())]


def values_of(way: str) -> tuple[str, ...]:
    """The flags that name a way's values to helm."""
    return () if way == "default" else ("--values", str(VALUES / f"{way}.yaml"))


@cache
def template(*flags: str, folder: Path = CHART) -> str:
    """What `helm template` writes: as release `demo` in namespace `ns`.

    Raises:
        AssertionError: It refused; with what it said.
    """
    ended = _helm("template", "demo", str(folder), "--namespace", "ns", *flags)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def refusal(*flags: str) -> str:
    """What `helm template` says where it must refuse."""
    ended = _helm("template", "demo", str(CHART), "--namespace", "ns", *flags)
    assert ended.returncode != 0, "it was rendered"
    return ended.stderr


def _helm(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(program("helm")), *arguments]
    # Of the user's own settings none may count; a cluster is not asked.
    own = dict.fromkeys(("KUBECONFIG", "HELM_CONFIG_HOME", "HELM_DATA_HOME"), "/nonexistent")
    return subprocess.run(
        command, env={**os.environ, **own}, capture_output=True, text=True, check=False
    )


def render(*flags: str, apis: tuple[str, ...] = EVERY_API) -> list[Object]:
    """The objects that helm would install, in a cluster that knows these APIs too."""
    wanted = [flag for api in apis for flag in ("--api-versions", api)]
    return [one for one in yaml.safe_load_all(template(*flags, *wanted)) if one]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [one for one in objects if one["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    [found] = [one for one in of_kind(objects, kind) if one["metadata"]["name"] == name]
    return found


def pod_templates(objects: list[Object]) -> Iterator[Object]:
    """Metadata and spec of every pod that these objects make."""
    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet", "DaemonSet"):
            yield one["spec"]["template"]
        elif one["kind"] == "Pod":
            yield one


def containers(objects: list[Object]) -> Iterator[Container]:
    for pod in pod_templates(objects):
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        for kind in ("initContainers", "containers"):
            for spec in pod["spec"].get(kind, ()):
                yield Container(component, pod, spec)


def container(objects: list[Object], name: str) -> Container:
    return next(one for one in containers(objects) if one.name == name)


def chart_file(name: str) -> Path:
    return CHART / name
