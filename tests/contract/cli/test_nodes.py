"""What `headrace get nodes` and `headrace describe node` show."""

from tests.contract.cli.conftest import Headrace
from tests.contract.cli.fake_control_plane import FakeControlPlane, a_node


def test_racks_and_islands_are_shown_where_nodes_tell_them(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.nodes = [a_node("node-a"), a_node("node-b")]
    told = plane.nodes[1].node
    told.labels["headrace.dev/rack"] = "row-7"
    for slot in told.accelerators:
        slot.island = "0"

    def shown(*command: str, column: str) -> list[str]:
        heads, *rows = (line.split() for line in headrace(*command).stdout.splitlines())
        return [row[heads.index(column)] for row in rows]

    assert shown("get", "nodes", column="RACK") == ["-", "row-7"]
    assert shown("get", "nodes", "-o", "wide", column="ISLANDS") == ["-", "2"]
    lines = headrace("describe", "node", "node-b").stdout.splitlines()
    assert [line.split() for line in lines if line.startswith("Rack:")] == [["Rack:", "row-7"]]
    at = next(i for i, line in enumerate(lines) if line.startswith("ACCELERATOR"))
    assert [line.split()[:3] for line in lines[at:]] == [
        ["ACCELERATOR", "TYPE", "ISLAND"],
        ["node-b-slot-0", "cpu", "0"],
        ["node-b-slot-1", "cpu", "0"],
    ]
