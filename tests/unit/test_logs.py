"""One way to write logs, for every process of the server side."""

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from controlplane.logs import set_up_logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What is set up here counts for this test alone."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_a_line_is_json_with_time_level_and_what_went_wrong() -> None:
    stream = io.StringIO()
    set_up_logs(stream=stream)
    try:
        raise ValueError("wanted a node")
    except ValueError:
        structlog.get_logger().exception("not done yet", node="a")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["node"], line["level"]) == ("not done yet", "a", "error")
    assert line["timestamp"].endswith("Z")
    assert line["exception"][0]["exc_value"] == "wanted a node"


def test_what_is_below_the_level_is_not_written_and_columns_are_for_people() -> None:
    stream = io.StringIO()
    set_up_logs(as_json=False, level="WARNING", stream=stream)
    log = structlog.get_logger()
    log.info("too small")
    log.warning("seen", node="a")
    (line,) = stream.getvalue().splitlines()
    assert "seen" in line
    assert "node=a" in line
    assert "\x1b" not in line, "no colours where nobody looks"
