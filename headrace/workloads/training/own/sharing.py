"""Parameters with two names."""

from collections.abc import Sequence

from torch import nn


def shared(model: nn.Module, modules: Sequence[str]) -> str:
    """A parameter that one of the modules shares with the rest of the model, by both names; empty
    for none.
    """
    first: dict[int, tuple[str, str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = next((module for module in modules if name.startswith(f"{module}.")), "")
        seen, its_owner = first.setdefault(id(parameter), (name, owner))
        if its_owner != owner:
            return f"{seen} that is {name} too"
    return ""
