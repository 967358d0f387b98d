"""The real helm installs, upgrades and removes on the real API server."""

import json
from pathlib import Path

import pytest

from tests.kubernetes.fixtures import Command

pytestmark = pytest.mark.process

CHART = {
    "Chart.yaml": "apiVersion: v2\nname: small\nversion: 0.1.0\n",
    "values.yaml": "said: hello\n",
    "templates/words.yaml": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: words}\n"
        "data: {said: {{ .Values.said | quote }}}\n"
    ),
}


@pytest.fixture
def chart(tmp_path: Path) -> str:
    for name, text in CHART.items():
        file = tmp_path / "small" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return str(tmp_path / "small")


def test_a_chart_is_installed_upgraded_and_removed(
    helm: Command, kubectl: Command, namespace: str, chart: str
) -> None:
    def words() -> list[str]:
        maps = json.loads(kubectl("get", "configmaps", "-n", namespace, "-o", "json"))["items"]
        return [one["data"]["said"] for one in maps if one["metadata"]["name"] == "words"]

    helm("install", "small", chart, "-n", namespace, "--wait")
    assert words() == ["hello"]
    helm("upgrade", "small", chart, "-n", namespace, "--set", "said=again")
    assert words() == ["again"]
    [release] = json.loads(helm("list", "-n", namespace, "-o", "json"))
    assert (release["status"], release["revision"]) == ("deployed", "2")
    helm("uninstall", "small", "-n", namespace)
    assert words() == []
