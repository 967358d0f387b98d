"""The control group below which a node's pods are."""

import os
from pathlib import Path

from tests.kubernetes.waiting import until

_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "headrace-node-"


class ControlGroup:
    """One group in every hierarchy of this machine; named after the process that makes it."""

    def __init__(self) -> None:
        self.name = f"{_PREFIX}{os.getpid()}"

    def make(self) -> None:
        """Makes it; removes those of nodes whose starter was killed."""
        for left in _groups(f"{_PREFIX}*"):
            if not Path(f"/proc/{left.name.removeprefix(_PREFIX)}").exists():
                _remove(left)
        for hierarchy in _hierarchies():
            group = hierarchy / self.name
            group.mkdir(exist_ok=True)
            # Of version 1: nobody may be in a group that has no processors and no memory.
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (hierarchy / name).exists():
                    (group / name).write_text((hierarchy / name).read_text())

    def remove(self) -> None:
        """Removes it, once the last process in it has ended."""
        until(f"the control group {self.name} is gone", self._is_gone)

    def _is_gone(self) -> bool:
        for group in _groups(self.name):
            _remove(group)
        return not _groups(self.name)


def _hierarchies() -> list[Path]:
    """Of version 1 a folder each; of version 2 there is one."""
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    return [each for each in _ROOT.iterdir() if each.is_dir() and not each.is_symlink()]


def _groups(pattern: str) -> list[Path]:
    return [group for hierarchy in _hierarchies() for group in hierarchy.glob(pattern)]


def _remove(group: Path) -> None:
    """A group goes like a folder, those below it first; one with processes stays."""
    for folder, _, _ in os.walk(group, topdown=False):
        try:
            Path(folder).rmdir()
        except OSError:
            continue
