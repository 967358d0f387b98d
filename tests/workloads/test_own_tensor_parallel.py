"""Models of a user's own, divided as their author says: the same losses, or a sentence."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.workloads.attempts import Fork, alive, until
from tests.workloads.own_ranks import RANKS

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def told(fork: Fork, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank tells of all cases."""
    output = tmp_path_factory.mktemp("own") / "told"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    logs = [output.with_suffix(f".log-{rank}") for rank in range(RANKS)]
    pids = [
        fork(
            {
                "TEST_MODULE": "tests.workloads.own_ranks",
                "TEST_RANK": str(rank),
                "TEST_PORT": str(port),
                "TEST_OUTPUT": str(output),
            },
            log,
        )
        for rank, log in enumerate(logs)
    ]
    until(
        lambda: not any(map(alive, pids)),
        lambda: "\n".join(log.read_text()[-2000:] for log in logs),
    )
    files = [Path(f"{output}.{rank}") for rank in range(RANKS)]
    assert all(file.exists() for file in files), [log.read_text()[-2000:] for log in logs]
    return [json.loads(file.read_text()) for file in files]


@pytest.mark.parametrize(
    ("case", "reference"),
    [("divided", "alone"), ("loss in parts", "alone"), ("dropout", "dropout alone")],
)
def test_divided_models_have_the_losses_of_one_rank(
    told: list[dict[str, Any]], case: str, reference: str
) -> None:
    found, wanted = told[0][case], told[0][reference]
    assert len(set(wanted)) == len(wanted)
    assert found == pytest.approx(wanted[: len(found)], rel=0, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("mean of a part", "wanted the losses of the whole model"),
        ("whole parameter between", "got another one for layers.0.gain"),
        ("half of a pair", "shapes cannot be multiplied"),
    ],
)
def test_a_division_that_computes_something_else_is_told_on_every_rank(
    told: list[dict[str, Any]], case: str, sentence: str
) -> None:
    assert [sentence in found[case] for found in told] == [True] * RANKS


def test_a_step_can_ask_where_it_is_computed(told: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(told):
        for place in (
            ["dp2-tp2-z2", rank, rank // 2, rank % 2, 7],
            ["tp4-ga2-gc", rank, 0, rank, 9],
        ):
            assert place in found["positions"]
