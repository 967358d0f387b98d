"""CUDA_VISIBLE_DEVICES, as CUDA reads it."""

import pytest

from headrace.api.visible_gpus import visible_gpus

MACHINE = ("GPU-aa11", "GPU-aa22", "GPU-bb33", "GPU-cc44")


def test_without_the_variable_all_gpus_may_be_used() -> None:
    assert visible_gpus(MACHINE, {"PATH": "/bin"}) == MACHINE


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("", ()),
        ("-1", ()),
        ("none", ()),
        ("2", ("GPU-bb33",)),
        ("3,0", ("GPU-cc44", "GPU-aa11")),
        (" 1 , 2", ("GPU-aa22", "GPU-bb33")),
        ("0,-1,1", ("GPU-aa11",)),
        ("0,9,1", ("GPU-aa11",)),
        ("9", ()),
        ("1,1", ()),
        ("GPU-bb33,GPU-aa11", ("GPU-bb33", "GPU-aa11")),
        ("GPU-b,GPU-aa2", ("GPU-bb33", "GPU-aa22")),
        ("GPU-aa,GPU-bb33", ()),
        ("GPU-cc44,GPU-elsewhere,GPU-aa11", ("GPU-cc44",)),
        ("GPU-bb33,2", ()),
        ("MIG-bb33", ()),
    ],
)
def test_only_what_the_variable_names_is_left(value: str, left: tuple[str, ...]) -> None:
    assert visible_gpus(MACHINE, {"CUDA_VISIBLE_DEVICES": value}) == left
