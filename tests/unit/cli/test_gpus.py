"""Which GPUs a local cluster takes."""

import sys
from types import SimpleNamespace

import pytest

from headrace.cli.up import gpus

MACHINE = ("GPU-aa11", "GPU-bb22", "GPU-cc33")


@pytest.fixture(autouse=True)
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    played = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(MACHINE),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda handle: MACHINE[handle],
    )
    monkeypatch.setitem(sys.modules, "pynvml", played)


def test_all_gpus_are_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus() == MACHINE
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("visible", "taken"), [("-1", ()), ("2,0", ("GPU-cc33", "GPU-aa11")), ("GPU-b", ("GPU-bb22",))]
)
def test_only_visible_gpus_are_taken_and_that_is_said(
    visible: str,
    taken: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == taken
    assert f"CUDA_VISIBLE_DEVICES leaves {len(taken)} of 3 GPUs" in capsys.readouterr().err
