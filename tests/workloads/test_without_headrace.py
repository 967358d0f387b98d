"""A script that its author runs alone: what it is told, in its author's words."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from headrace import train
from headrace.workloads.checkpoints import JobCheckpoints
from headrace.workloads.storage import LocalStorage

DATA = TensorDataset(torch.arange(30.0).view(10, 3) / 30)


def step(model: nn.Module, batch: Any) -> Tensor:
    (x,) = batch
    found: Tensor = model(x).square().mean(dim=1)
    return found


def settings(folder: Path | str, *, steps: int = 3, **others: Any) -> train.Settings:
    return train.Settings(global_batch_size=4, steps=steps, checkpoints=str(folder), **others)


def trained(
    folder: Path | str,
    *,
    width: int = 3,
    steps: int = 3,
    step: Callable[[nn.Module, Any], Tensor] = step,
    data: TensorDataset = DATA,
    **others: Any,
) -> train.Trained:
    chosen = settings(folder, steps=steps, **others)
    return train.run(lambda: nn.Linear(3, width), data, step, settings=chosen)


class Interrupted:
    """A step during which someone presses Ctrl-C, once it has been called so many times."""

    def __init__(self, calls: int) -> None:
        self.calls_left = calls

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        self.calls_left -= 1
        if self.calls_left == 0:
            signal.raise_signal(signal.SIGINT)
        return step(model, batch)


@pytest.mark.parametrize("steps", [3, 5])
def test_a_checkpoint_of_another_model_is_told_however_many_steps_it_has(
    tmp_path: Path, steps: int
) -> None:
    assert trained(tmp_path / "run", steps=3).is_done
    with pytest.raises(train.WorkloadError, match=r"is of another model.*keep the model's sizes"):
        trained(tmp_path / "run", steps=steps, width=5)


def test_that_nothing_was_left_to_do_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "run")
    assert "nothing left to do" not in capsys.readouterr().out
    assert trained(tmp_path / "run").is_done
    assert "nothing left to do: the checkpoint has 3 steps already" in capsys.readouterr().out


def test_what_changed_since_a_checkpoint_is_told_to_who_runs_a_script(tmp_path: Path) -> None:
    trained(tmp_path / "run")
    wanted = r"\(seed: 0 -> 1; data: other samples\); .*, or take another folder$"
    with pytest.raises(train.WorkloadError, match=wanted):
        trained(tmp_path / "run", steps=5, seed=1, data=TensorDataset(torch.ones(10, 3)))


def test_ctrl_c_is_a_stop_that_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    ended = trained(tmp_path / "run", steps=100_000, step=Interrupted(20))
    assert not ended.is_done
    assert 0 < ended.step < 100
    assert "Ctrl-C again: at once" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    checkpoints = JobCheckpoints(LocalStorage(tmp_path), "run")
    assert [found.marker.step for found in checkpoints.whole()] == [ended.step]


def test_ctrl_c_before_the_first_step_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="stopped before the first step"):
        trained(tmp_path / "run", step=Interrupted(1))
    assert not JobCheckpoints(LocalStorage(tmp_path), "run").whole()


@pytest.mark.parametrize("name", ["run_v1.2", "Run-3", "7"])
def test_folders_are_called_as_people_call_them(tmp_path: Path, name: str) -> None:
    _, folder = settings(f"{tmp_path}/{name}/").checked()
    assert JobCheckpoints(LocalStorage(tmp_path), folder).uid == name


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "letters, digits, -, _ and ., beginning and ending with a letter or digit, got ''"),
        ("runs/.hidden", "with a letter or digit, got 'runs/.hidden'"),
        ("s3://bucket", "a folder in a store, such as s3://bucket/run, got 's3://bucket'"),
        ("foo://x/", "a folder in a store, such as foo://x/run, got 'foo://x/'"),
        (__file__, "wanted a folder, which is not a file, got"),
    ],
)
def test_what_is_no_folder_for_checkpoints_is_told(given: str, told: str) -> None:
    with pytest.raises(train.WorkloadError, match=f"^settings.checkpoints: .*{re.escape(told)}"):
        settings(given).checked()


def test_a_url_that_nothing_opens_is_no_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(train.WorkloadError, match="wanted a path or a URL that fsspec can open"):
        trained("foo://bucket/run")
    assert not list(tmp_path.iterdir())


def test_a_plan_of_other_ranks_than_were_started_is_told_with_the_command(tmp_path: Path) -> None:
    wanted = "for 2 ranks, but 1 was started; start it with `torchrun --nproc-per-node=2 "
    with pytest.raises(train.WorkloadError, match=wanted):
        trained(tmp_path / "run", plan="dp2")
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import sys
from pathlib import Path
from torch.utils.data import TensorDataset
from tests.workloads.test_without_headrace import DATA, trained


def fallen(model, batch):
    raise KeyError(27)


trained(sys.argv[1], **({"plan": "dp2"} if sys.argv[2] == "plan" else {"step": fallen}))
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("what", "first", "last"),
    [
        ("plan", "CannotBeTrained: plan dp2 is for 2 ranks", "CannotBeTrained: plan dp2"),
        ("step", '  File "SCRIPT", line 9, in fallen', "CannotBeTrained: step: wanted"),
    ],
)
def test_what_is_wrong_is_a_sentence_and_not_our_frames(
    tmp_path: Path, what: str, first: str, last: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run"), what],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith(first.replace("SCRIPT", str(script)))
    assert lines[-1].startswith(last)
    assert len(lines) <= 3
