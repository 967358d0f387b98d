"""How tensor-parallel ranks share a model of the user's own: by torch's styles and by name."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from torch import nn
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    PrepareModuleInputOutput,
    PrepareModuleOutput,
    RowwiseParallel,
)

from headrace.workloads.refusal import CANNOT_BE_TRAINED, WorkloadError
from headrace.workloads.training.own.sharing import shared

_LEAVE_WHOLE = (PrepareModuleInput, PrepareModuleInputOutput, PrepareModuleOutput)
"""Styles that only say how tensors come in and go out."""


def styles_of(
    model: nn.Module, chosen: Mapping[str, ParallelStyle] | None
) -> dict[str, ParallelStyle]:
    """The style of each module that is divided.

    Args:
        model: The user's model.
        chosen: Styles by name below the model, as torch's ``parallelize_module`` takes them: in
            ``layers.*.up``, the star stands for any one name.

    Raises:
        WorkloadError: A name matches nothing, or a style cannot be had there.
    """
    found: dict[str, ParallelStyle] = {}
    by: dict[str, str] = {}
    for pattern, style in (chosen or {}).items():
        if not isinstance(style, ParallelStyle):
            raise _refused(
                "wanted styles of torch.distributed.tensor.parallel, such as ColwiseParallel() and "
                f"RowwiseParallel(), got {style!r} for {pattern!r}"
            )
        names = list(_matched(model, pattern.split("."), ""))
        if not names:
            raise _refused(
                f"wanted names of submodules ({_known(model, pattern)}), got {pattern!r}, which "
                "matches none"
            )
        for name in names:
            if name in by:
                raise _refused(
                    f"wanted one style for each module, got {by[name]!r} and {pattern!r} for {name}"
                )
            _check_kind(name, model.get_submodule(name), style)
            found[name], by[name] = style, pattern
    # A module within another one comes first: it is the one whose parameters are divided.
    divided = [name for name, style in found.items() if not isinstance(style, _LEAVE_WHOLE)]
    both = shared(model, sorted(divided, key=len, reverse=True))
    if both:
        raise _refused(
            f"wanted parameters that belong to one module each, got {both}; leave out what shares"
        )
    return found


def cannot_divide(model: nn.Module, styles: Mapping[str, ParallelStyle], ranks: int) -> str:
    """Why so many tensor-parallel ranks cannot share the model; empty if they can.

    Args:
        model: The user's model; shapes are enough.
        styles: See `styles_of`.
        ranks: How many.
    """
    if not styles:
        outer = ", ".join(name for name, _ in model.named_children())
        return (
            f"wanted the layers that {ranks} tensor-parallel ranks divide, got none; say "
            "train.run(..., tensor_parallel={name: style}) with names of submodules "
            f"({outer} or what is in them) and torch's styles, or take dp{ranks}-z3"
        )
    for name, style in styles.items():
        what, size, equally = _divided(model.get_submodule(name), style)
        if not _suits(size, ranks, equally):
            fitting = [str(fewer) for fewer in range(1, ranks) if _suits(size, fewer, equally)]
            return (
                f"wanted {what} of {name} that {ranks} tensor-parallel ranks divide, got {size}; "
                f"{', '.join(fitting)} would"
            )
    return ""


def _matched(module: nn.Module, pattern: list[str], above: str) -> Iterator[str]:
    """Names of the submodules that torch's ``parallelize_module`` would find."""
    first, *rest = pattern
    for name, child in module.named_children():
        if fnmatchcase(name, first):
            if rest:
                yield from _matched(child, rest, f"{above}{name}.")
            else:
                yield f"{above}{name}"


def _known(model: nn.Module, pattern: str) -> str:
    """What there is where a pattern goes astray."""
    good: list[str] = []
    for name in pattern.split("."):
        if not list(_matched(model, [*good, name], "")):
            break
        good.append(name)
    above = next(_matched(model, good, ""), "") if good else ""
    inner = [
        f"{above}.{name}" if above else name
        for name, _ in model.get_submodule(above).named_children()
    ]
    return ", ".join(inner) if inner else f"{above} has none"


def _check_kind(name: str, module: nn.Module, style: ParallelStyle) -> None:
    divides = isinstance(style, ColwiseParallel | RowwiseParallel)
    if divides and not isinstance(module, nn.Linear | nn.Embedding):
        raise _refused(
            f"wanted a Linear or an Embedding for {type(style).__name__}, got {name}, which is a "
            f"{type(module).__name__}"
        )


def _divided(module: nn.Module, style: ParallelStyle) -> tuple[str, int, bool]:
    """What ranks have parts of, how large the whole is, and whether the parts must be equal.

    Parts that come in or go out as plain tensors are equal, or torch would not know the whole.
    """
    columns, rows = ("width", "rows") if isinstance(module, nn.Embedding) else ("outputs", "inputs")
    if isinstance(style, ColwiseParallel):
        leaves_divided = isinstance(style.output_layouts[0], Shard) and style.use_local_output
        return columns, _sizes(module)[0], leaves_divided
    if isinstance(style, RowwiseParallel):
        comes_divided = isinstance(style.input_layouts[0], Shard)
        return rows, _sizes(module)[1], comes_divided and isinstance(module, nn.Linear)
    return "", 0, True  # torch knows


def _sizes(module: nn.Module) -> tuple[int, int]:
    """What comes out, and what goes in."""
    if isinstance(module, nn.Embedding):
        return module.embedding_dim, module.num_embeddings
    assert isinstance(module, nn.Linear)
    return module.out_features, module.in_features


def _suits(size: int, ranks: int, equally: bool) -> bool:
    """Whether each rank has an equal part, or at least some, when torch divides."""
    return size % ranks == 0 if equally else -(-size // ranks) * (ranks - 1) < size


def _refused(message: str) -> WorkloadError:
    return WorkloadError(CANNOT_BE_TRAINED, f"tensor_parallel: {message}")
