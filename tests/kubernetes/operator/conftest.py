"""The kinds that the operator looks after, on the API server that all tests share."""

import pytest

from tests.architecture.source_tree import ROOT
from tests.kubernetes.fixtures import Command

CRDS = ROOT / "deploy" / "helm" / "headrace" / "files" / "crds"


@pytest.fixture(scope="session", autouse=True)
def kinds(kubectl: Command) -> None:
    """Others may have put them there too."""
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    kubectl("wait", "--for=condition=Established", "-f", str(CRDS))
