"""Ends a rank that waits for one which has failed.

A rank in the middle of a collective hears nothing: the connections of a failed rank stay open
until its process is gone, and rank 0 stays a while to host the notice board. So a thread looks at
the board.
"""

import json
import os
import sys
import threading
from typing import TYPE_CHECKING

from headrace.workloads.control import FAILED, ControlFolder

if TYPE_CHECKING:
    from headrace.workloads.rendezvous import Rendezvous

_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 1.0
"""How long the rank has to find out for itself, which ends it in better order."""


class Watch:
    """Looks at the notice board while the rank trains."""

    def __init__(self, rendezvous: "Rendezvous", control: ControlFolder) -> None:
        self._rank = rendezvous.rank
        # A store of its own: one that the rank waits on answers nobody else.
        self._store = rendezvous.store.clone() if rendezvous.ranks > 1 else None
        self._control = control
        self._over = threading.Event()

    def __enter__(self) -> "Watch":
        if self._store is not None:
            threading.Thread(target=self._run, name="watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _run(self) -> None:
        assert self._store is not None
        while not self._over.wait(_LOOK_SECONDS):
            try:
                if not self._store.check(["failure"]):
                    continue
                rank, code, message = json.loads(self._store.get("failure"))
            except RuntimeError:
                return  # the host of the board is gone, which ends every collective too
            if rank == self._rank or self._over.wait(_GRACE_SECONDS):
                return
            self._end(code, f"rank {rank}: {message}")

    def _end(self, code: str, message: str) -> None:
        """End the process, whose main thread may wait for ever."""
        sys.stderr.write(f"{code}: {message}\n")
        sys.stderr.flush()
        self._control.exit(FAILED, reason=code, message=message)
        os._exit(1)
