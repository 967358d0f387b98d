"""Train a model of your own under any execution plan: see docs/own-training-code.md.

    from headrace import train

    train.run(model, data, step, settings=train.Settings(...))

A thin door: torch is loaded when you first reach through it, and neither Ray nor the server side
ever is.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.workloads.refusal import WorkloadError
    from headrace.workloads.training.own.position import position
    from headrace.workloads.training.own.run import Trained, run
    from headrace.workloads.training.own.settings import Settings
    from headrace.workloads.training.position import Position

__all__ = ["Position", "Settings", "Trained", "WorkloadError", "position", "run"]

_BEHIND = {
    "Position": "headrace.workloads.training.position",
    "Settings": "headrace.workloads.training.own.settings",
    "Trained": "headrace.workloads.training.own.run",
    "WorkloadError": "headrace.workloads.refusal",
    "position": "headrace.workloads.training.own.position",
    "run": "headrace.workloads.training.own.run",
}


def __getattr__(name: str) -> Any:
    if name not in _BEHIND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_BEHIND[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
