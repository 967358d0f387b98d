"""What the page says that policies assume is what they say themselves."""

import re

from simulator.policies import assumptions_of, policy_named
from tests.architecture.source_tree import ROOT
from tests.simulation.small_table import SMALL_TABLE

_SWITCH_SECONDS = 78.0


def test_the_page_lists_what_the_policies_of_its_table_assume() -> None:
    page = (ROOT / "docs" / "systems" / "rubick.md").read_text(encoding="utf-8")
    block = page.split("<!-- policies -->")[1].split("<!-- /policies -->")[0]
    names = re.findall(r"^\| \**([a-z0-9-]+)\** \| [0-9]", block, re.MULTILINE)
    assert len(names) > 5
    policies = [policy_named(name, SMALL_TABLE, _SWITCH_SECONDS) for name in names]
    told = dict.fromkeys(note for policy in policies for note in assumptions_of(policy))
    listed = re.findall(r"^- (.+)$", block, re.MULTILINE)
    # Before them comes what is true of the workload, whoever decides.
    assert listed[-len(told) :] == list(told)
