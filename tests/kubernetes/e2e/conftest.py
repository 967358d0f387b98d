"""One real node with the chart for all tests of this folder; only `make e2e` runs them."""

import os
from collections.abc import Iterator

import pytest

from tests.kubernetes.e2e.release import NEXT, Release
from tests.kubernetes.real_node import build_images
from tests.kubernetes.real_node.node import real_node


@pytest.fixture(autouse=True)
def _test_leaves_no_process() -> None:
    """Pods come and go on the node while a test runs, and all are children of this process: none of
    them is left by a test. The whole node is gone with the session, which is looked at as ever.
    """


@pytest.fixture(scope="session")
def release() -> Iterator[Release]:
    """Installed by helm, and ready."""
    if os.environ.get("HEADRACE_E2E") != "1":
        pytest.skip("tier 3, a real node, takes root, 30 GB and minutes: `make e2e` runs it")
    with real_node(build_images.archives()) as (node, api_server):
        for image in build_images.IMAGES:
            name = build_images.name_of(image)
            node.tag_image(name, f"{name.rpartition(':')[0]}:{NEXT}")
        made = Release(api_server, node.within())
        made.prepare()
        made.helm("install")
        yield made
        api_server.close()
