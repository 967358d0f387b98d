"""Which errors say that another rank cannot be reached, and which that something else is wrong."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from headrace.workloads.refusal import reason_of
from headrace.workloads.rendezvous import RankGoneError
from headrace.workloads.training.own.blame import is_theirs
from headrace.workloads.training.run import plainly
from headrace.workloads.training.world import World, lost_contact

NCCL = "NCCL error in: NCCLUtils.cpp:94, unhandled cuda error, NCCL version 2.29.3"
NCCL_OUT_OF_MEMORY = f"{NCCL}\nLast error:\nCuda failure 2 'out of memory'"

Pair = list[Any]


@pytest.fixture
def pair() -> Pair:
    """The two ends of one gloo group, in this process."""
    store = dist.HashStore()
    found: dict[int, Any] = {}

    def connect(rank: int) -> None:
        found[rank] = dist.ProcessGroupGloo(
            dist.PrefixStore("pair", store), rank, 2, timedelta(seconds=60)
        )

    threads = [threading.Thread(target=connect, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found.pop(0), found.pop(1)]


def raised(call: Callable[[], Any]) -> Exception:
    """What the call raises."""
    with pytest.raises(Exception) as error:  # noqa: PT011 - it is looked at
        call()
    return error.value


def test_a_peer_that_is_gone_is_lost_contact(pair: Pair) -> None:
    pair.pop()
    error = raised(lambda: pair[0].allreduce([torch.ones(3)]).wait())
    assert type(error) is RuntimeError
    assert "Connection closed by peer" in str(error) or "Read error" in str(error)
    assert lost_contact(error)
    assert not is_theirs(error)


def test_a_peer_that_does_not_come_is_lost_contact(pair: Pair) -> None:
    patience = dist.AllreduceOptions()
    patience.timeout = timedelta(milliseconds=50)
    error = raised(lambda: pair[0].allreduce([torch.ones(3)], patience).wait())
    assert type(error) is RuntimeError
    assert "Timed out waiting 50ms" in str(error)
    assert lost_contact(error)


def test_a_collective_that_is_called_wrongly_is_the_callers_mistake(pair: Pair) -> None:
    error = raised(lambda: pair[0].allgather([[torch.ones(3)]], [torch.ones(3)]))
    assert "ProcessGroupGloo" in str(error)
    assert not lost_contact(error)
    assert is_theirs(error)


def test_what_gloo_says_is_told_without_its_sources(pair: Pair) -> None:
    patience = dist.AllreduceOptions()
    patience.timeout = timedelta(milliseconds=50)
    error = raised(lambda: pair[0].allreduce([torch.ones(3)], patience).wait())
    assert plainly(error) == "Timed out waiting 50ms for recv operation to complete"
    closed = "Read error [127.0.0.1]:45440: Connection reset by peer"
    place = "[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545]"
    advice = (
        "This is typically caused by a remote worker hanging or bugs in the application. Check the "
        "logs of the remote worker before reporting an error. GLHF!"
    )
    told = RankGoneError(f"the ranks could not be connected: {place} {closed}. {advice}")
    assert plainly(told) == f"the ranks could not be connected: {closed}"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Backend gloo does not support reduce_scatter"),
        RuntimeError(
            "[enforce fail at /pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:464] "
            "op.preamble.length <= op.nbytes. 1012 vs 12. Received data size doesn't match"
        ),
        RuntimeError("ProcessGroupNCCL is only supported with GPUs, no GPUs found!"),
    ],
)
def test_the_name_of_a_backend_is_no_sign_of_lost_contact(error: RuntimeError) -> None:
    assert not lost_contact(error)
    assert is_theirs(error)


def test_memory_that_runs_out_within_nccl_is_no_lost_contact() -> None:
    error = dist.DistBackendError(NCCL_OUT_OF_MEMORY)
    assert reason_of(error)[0] == "OutOfMemory"
    assert not lost_contact(error)
    assert not is_theirs(error)
    assert lost_contact(dist.DistBackendError(NCCL))


def a_world() -> World:
    return World(dist.HashStore(), rank=0, size=1, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (dist.DistBackendError(NCCL), RankGoneError),
        (dist.DistStoreError("wait timeout after 600000ms"), RankGoneError),
        (dist.DistBackendError(NCCL_OUT_OF_MEMORY), dist.DistBackendError),
    ],
)
def test_ranks_that_do_not_come_together_say_why(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: type[Exception]
) -> None:
    def fails(**_named: Any) -> None:
        raise error

    monkeypatch.setattr(dist, "new_group", fails)
    try:
        assert type(raised(a_world)) is told
    finally:
        dist.destroy_process_group()


def test_a_network_interface_that_does_not_exist_is_no_lost_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nowhere0")
    error = raised(a_world)
    assert not isinstance(error, RankGoneError)
    assert "nowhere0" in str(error)
