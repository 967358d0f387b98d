"""A unit whose connections to the other ranks break while it takes up a checkpoint's state:
TEST_CUT_OFF says which unit.
"""

import os
from pathlib import Path
from typing import Any

import torch.distributed as dist

from headrace.workloads import launch
from headrace.workloads.training.planned import PlannedModel
from tests.workloads.cut_off_unit import cut_off


def main() -> int:
    """Run the unit, prepared to be cut off."""
    folder = Path(os.environ["HEADRACE_CONTROL_DIR"])
    equip = PlannedModel.equip

    def disturbed(self: PlannedModel) -> Any:
        if folder.name == f"unit-{os.environ['TEST_CUT_OFF']}":
            cut_off(folder)
        dist.barrier()  # as what equips a model may, in one release of torch or another
        return equip(self)

    PlannedModel.equip = disturbed  # type: ignore[method-assign]
    return launch.main()
