"""What a Node's object keeps off it."""

import json
from typing import Any

import pytest

from controlplane.domain.node import Closed
from operators.nodes.node import ANY_NODE, Pools, closed_node, read_pools

GPU = """[{"nodeSelector": {"gpu": "yes"},
  "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]}]"""
CORDONED = {"unschedulable": True}
CORDON = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
DRAIN = {"headrace.dev/drain": "true"}


def of(
    spec: dict[str, Any], pools: Pools = ANY_NODE, annotations: dict[str, str] | None = None
) -> Closed | None:
    """What an object with this spec keeps off, of the labels ``gpu=yes``."""
    metadata = {"name": "n1", "labels": {"gpu": "yes"}, "annotations": annotations}
    found = closed_node({"metadata": metadata, "spec": spec}, pools)
    return found.closed if found is not None else None


def tainted(key: str, effect: str, value: str = "") -> dict[str, Any]:
    return {"taints": [{"key": key, "effect": effect, "value": value}]}


def tolerating(**toleration: Any) -> Pools:
    return read_pools(json.dumps([{"tolerations": [toleration]}]))


@pytest.mark.parametrize(
    ("spec", "closed"),
    [
        ({}, None),
        (CORDONED, Closed.TO_NEW_WORK),
        ({**CORDONED, "taints": [CORDON]}, Closed.TO_NEW_WORK),
        # The taint comes a moment later, and goes a moment later: the spec tells first.
        ({"taints": [CORDON]}, None),
        (tainted("team", "NoSchedule"), Closed.TO_NEW_WORK),
        (tainted("team", "NoExecute"), Closed.TO_ALL_WORK),
        (tainted("team", "PreferNoSchedule"), None),
        ({**CORDONED, **tainted("team", "NoExecute")}, Closed.TO_ALL_WORK),
        # Whether such a node lives, its agent tells.
        (tainted("node.kubernetes.io/not-ready", "NoExecute"), None),
        (tainted("node.kubernetes.io/out-of-service", "NoExecute"), Closed.TO_ALL_WORK),
    ],
)
def test_cordons_and_taints_close_a_node(spec: dict[str, Any], closed: Closed | None) -> None:
    assert of(spec) is closed


def test_the_annotation_drains_what_is_cordoned_and_nothing_else() -> None:
    assert of(CORDONED, annotations=DRAIN) is Closed.TO_ALL_WORK
    assert of({}, annotations=DRAIN) is None
    assert of(CORDONED, annotations={"headrace.dev/drain": "false"}) is Closed.TO_NEW_WORK


@pytest.mark.parametrize(
    ("toleration", "closed"),
    [
        ({"operator": "Exists"}, None),
        ({"key": "team", "operator": "Exists"}, None),
        ({"key": "team", "value": "a"}, None),
        ({"key": "team", "value": "a", "effect": "NoExecute"}, None),
        ({"key": "team", "value": "b"}, Closed.TO_ALL_WORK),
        ({"key": "other", "operator": "Exists"}, Closed.TO_ALL_WORK),
        ({"key": "team", "operator": "Exists", "effect": "NoSchedule"}, Closed.TO_ALL_WORK),
        # Pods with it are evicted all the same, a while later.
        ({"key": "team", "operator": "Exists", "tolerationSeconds": 60}, Closed.TO_ALL_WORK),
    ],
)
def test_what_agents_tolerate_keeps_nothing_off(
    toleration: dict[str, Any], closed: Closed | None
) -> None:
    assert of(tainted("team", "NoExecute", "a"), tolerating(**toleration)) is closed


def test_only_the_pool_that_a_node_is_of_counts() -> None:
    pools = read_pools(GPU)
    assert of(tainted("nvidia.com/gpu", "NoSchedule"), pools) is None
    elsewhere = read_pools(GPU.replace('"yes"', '"no"'))
    assert of(CORDONED, elsewhere) is None, "no agent of ours runs there"


def test_it_says_why() -> None:
    spec = {**CORDONED, **tainted("team", "NoSchedule", "a")}
    found = closed_node({"metadata": {"name": "n1"}, "spec": spec}, ANY_NODE)
    assert found is not None
    assert found.why == "it is cordoned; taint team=a:NoSchedule is not tolerated"


@pytest.mark.parametrize("text", ["{}", "[1]", '[{"tolerations": [{"operator": "Gt"}]}]', "pools"])
def test_pools_that_cannot_be_read_are_refused_with_where(text: str) -> None:
    with pytest.raises(ValueError, match="wanted a JSON array of pools"):
        read_pools(text)
