"""Ranks that hang or are cut off: who is to blame is told by those who wait."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest
import torch.distributed as dist

from headrace.workloads.control import Launch, StopSignal
from headrace.workloads.launch import _seat
from headrace.workloads.pace import Beat, hung, silent
from headrace.workloads.refusal import WorkloadError, reason_of
from headrace.workloads.rendezvous import Rendezvous, address_of, bind
from tests.workloads.attempts import Agent, Manifest, a_manifest

ENDLESS = 100_000
CUT_OFF = {"TEST_MODULE": "tests.workloads.cut_off_unit", "TEST_CUT_OFF": "1"}


def impatient(store: Path) -> Manifest:
    manifest = a_manifest(store, steps=ENDLESS, everySteps=5)
    manifest["spec"]["retries"] = {"stallSeconds": 1}
    return manifest


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_hangs_is_named_by_the_one_that_waits(
    agent: Agent, store: Path, victim: int
) -> None:
    run = agent.start(impatient(store), 2).reaches(6)
    os.kill(run.units[victim].pid, signal.SIGSTOP)
    found = run.units[1 - victim].exit()
    assert (found["outcome"], found["reason"]) == ("Failed", "RankHung")
    assert f"rank {victim} gives no sign of life" in found["message"]
    assert f"rank {1 - victim} " not in found["message"]


def test_a_broken_connection_between_living_ranks_is_no_lost_rank(
    agent: Agent, store: Path
) -> None:
    run = agent.start(a_manifest(store, steps=ENDLESS), 2, environment=CUT_OFF)
    assert run.reasons() == {"CommunicationFailed"}
    assert all("although all 2 are alive" in found["message"] for found in run.exits())


@pytest.mark.timeout(60)
def test_nobody_waits_for_the_goodbye_of_the_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.workloads.rendezvous.LINGER_SECONDS", float("inf"))
    monkeypatch.setattr("headrace.workloads.rendezvous.LINGER_FOR_LATECOMERS_SECONDS", float("inf"))
    store, stop = dist.HashStore(), StopSignal(tmp_path)
    host, survivor, _dead = (
        Rendezvous(store, rank=rank, ranks=3, prefix="job/1", stop=stop) for rank in range(3)
    )
    host.do_without([2])
    survivor.leave()
    host.leave()


def test_a_rendezvous_that_is_gone_is_a_lost_rank() -> None:
    bound = bind("127.0.0.1")
    address = address_of(bound)
    bound.close()
    told = {"uid": "job", "attempt": 1, "unit": 1, "units_total": 2, "manifest": {}}
    place = {"first_rank": 1, "ranks_total": 2, "plan": "dp2", "rendezvous": address}
    with pytest.raises(WorkloadError, match=f"nobody listens at the rendezvous {address}") as lost:
        _seat(Launch.from_json(json.dumps({**told, **place})))
    assert lost.value.code == "RankLost"


@pytest.mark.timeout(60)
def test_one_that_ends_before_they_agree_waits_for_those_who_have_only_arrived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.workloads.rendezvous.LINGER_SECONDS", 0.0)
    monkeypatch.setattr("headrace.workloads.rendezvous.LINGER_FOR_LATECOMERS_SECONDS", float("inf"))
    store, stop = dist.HashStore(), StopSignal(tmp_path)
    host, slow = (
        Rendezvous(store, rank=rank, ranks=2, prefix="job/1", stop=stop) for rank in range(2)
    )
    host.refuse("CannotBeTrained", "it makes no sense")
    heard: list[str] = []

    def hears() -> None:
        try:
            slow.agree({})
        except WorkloadError as error:
            heard.append(error.message)
        slow.leave()

    thread = threading.Thread(target=hears)
    thread.start()
    host.leave()
    assert heard == ["it makes no sense"]
    thread.join()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("fails", [0, 1])
def test_nobody_waits_for_a_rank_that_fails_before_they_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    monkeypatch.setattr("headrace.workloads.rendezvous.GATHER_SECONDS", 1.0)
    store, stop = dist.HashStore(), StopSignal(tmp_path)
    ranks = [Rendezvous(store, rank=rank, ranks=2, prefix="job/1", stop=stop) for rank in range(2)]
    ranks[fails].report_failure(*reason_of(ValueError("of no kind that was thought of")))
    with pytest.raises(WorkloadError, match="of no kind that was thought of") as raised:
        ranks[1 - fails].agree({})
    assert raised.value.code == "RankFailed"


def a_beat(count: int, step: int, left_seconds: float, *, waits: bool = True) -> Beat:
    return Beat(count, step, "step", left_seconds, "file.py:1 in function", waits)


def test_whoever_gives_no_two_signs_of_life_is_silent() -> None:
    before = {0: a_beat(10, 3, 0), 1: a_beat(7, 3, 0)}
    after = {0: a_beat(12, 3, 0), 1: a_beat(8, 3, 0)}
    assert silent(before, after, 3) == [1, 2]


@pytest.mark.parametrize(
    ("beats", "sentence"),
    [
        # Behind the others, or at the same step in code of its own.
        ({0: a_beat(9, 8, -1), 1: a_beat(9, 7, -1)}, "rank 1 hangs in step 7"),
        ({0: a_beat(9, 8, -1, waits=False), 1: a_beat(9, 8, -1)}, "rank 0 hangs in step 8"),
        ({0: a_beat(9, 8, -1), 1: a_beat(9, 8, -1)}, "all ranks live and wait for each other"),
        ({0: a_beat(9, 8, -1)}, "rank 0 hangs in step 8"),
        # Rank 1 commits a checkpoint, which may take longer than a step.
        ({0: a_beat(9, 8, -1), 1: a_beat(9, 7, 900)}, None),
    ],
)
def test_of_living_ranks_the_one_is_named_that_waits_for_nobody(
    beats: dict[int, Beat], sentence: str | None
) -> None:
    told = hung([], beats)
    assert told is None if sentence is None else told is not None and sentence in told
