"""A unit that waits for no step at which nothing is being saved, and whose saves settle only once
``settle`` is in its control folder; TEST_HELD says which unit. ``settling`` says that it waits.
"""

import os
from pathlib import Path

from headrace.workloads import launch
from headrace.workloads.training import wish
from headrace.workloads.training.saving import Saver
from tests.workloads.attempts import until


def main() -> int:
    """Run the unit."""
    wish._PATIENCE_SECONDS = -1.0
    folder, settle = Path(os.environ["HEADRACE_CONTROL_DIR"]), Saver.settle

    def held(saver: Saver) -> None:
        (folder / "settling").touch()
        until((folder / "settle").exists, lambda: "the save to settle")
        settle(saver)

    if folder.name == f"unit-{os.environ['TEST_HELD']}":
        Saver.settle = held  # type: ignore[assignment, method-assign]
    return launch.main()
