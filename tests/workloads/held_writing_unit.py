"""A unit that writes what it saves only once that is waited for, so that from its first save on one
is always under way; it waits for no step at which nothing is being saved. ``settled`` in its
control folder tells the step of each save that was under way when ranks came or went.
"""

import os
import threading
from pathlib import Path
from typing import Any

from headrace.workloads import launch
from headrace.workloads.storage import Storage
from headrace.workloads.training import tensors, wish
from headrace.workloads.training.saving import Saver
from headrace.workloads.training.stored_form import writer_of
from headrace.workloads.training.tensors import Saving


def main() -> int:
    """Run the unit."""
    wish._PATIENCE_SECONDS = -1.0
    told = Path(os.environ["HEADRACE_CONTROL_DIR"]) / "settled"
    wanted = threading.Event()
    wait, settle = Saving.wait, Saver.settle

    def waited(self: Saving) -> None:
        wanted.set()
        wait(self)

    def settled(self: Saver) -> None:
        draft = self._draft
        if draft is not None and not draft.saving.is_over:
            with told.open("a") as lines:
                lines.write(f"{draft.step}\n")
        settle(self)

    def held(storage: Storage, location: str) -> Any:
        writer = writer_of(storage, location)
        write = writer.write_data

        def once_wanted(*given: Any) -> Any:
            wanted.wait()
            return write(*given)

        wanted.clear()
        writer.write_data = once_wanted
        return writer

    Saving.wait, Saver.settle = waited, settled  # type: ignore[method-assign]
    tensors.writer_of = held  # type: ignore[attr-defined]
    return launch.main()
