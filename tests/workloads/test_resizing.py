"""Ranks come to a training that goes on, and leave it again, and change none of its losses.

``make test`` runs short walks and two deaths; ``make plans`` runs long walks and all deaths.
"""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from headrace.api.plan import ExecutionPlan
from headrace.workloads.checkpoints import JobCheckpoints
from headrace.workloads.storage import LocalStorage
from tests.workloads.attempts import Agent, Attempt, Manifest, Unit, a_manifest, alive, until
from tests.workloads.test_own_code import a_script

TOLERANCE = 1e-4
ENDLESS = 100_000
UNEVEN = {
    # Sizes that ranks and stages do not divide evenly.
    "gpt2": {"numHiddenLayers": 5, "hiddenSize": 40, "numAttentionHeads": 4},
    "llama": {"numHiddenLayers": 4, "hiddenSize": 32, "numAttentionHeads": 4},
}
WHOLE = bool(os.environ.get("HEADRACE_ALL_PLANS"))
WALKS = {
    "gpt2": ["dp2-z2", "dp1", "pp2.1f1b-ga4"],
    "llama": ["tp2", "dp4-z3", "dp2-tp2", "tp2", "dp1"],
}
LONG_WALKS = {
    "gpt2": [
        *("dp2-z1", "tp2-pp2.1f1b-ga4", "dp1-gc", "tp4", "dp2-z3", "dp4-z2-offload", "pp2.zb-ga4"),
        *(
            "dp1-z2-offload",
            "pp3.1f1b-ga4",
            "dp2-tp2-z3",
            "pp4.1f1b-ga4",
            "tp2",
            "dp1",
            "dp2",
            "dp4",
            "dp1",
        ),
    ],
    "llama": [
        *(
            "dp2-z3-offload",
            "dp1",
            "tp2",
            "dp2-tp2-z2",
            "dp2-pp2.gpipe-z2-ga4",
            "pp2.zb-ga4",
            "dp4-z1",
        ),
        *(
            "tp2-pp2.interleaved-ga4",
            "pp3.gpipe-ga4",
            "dp2-tp2",
            "dp2",
            "dp1-ga2",
            "tp2",
            "dp4-z3-gc",
            "dp1",
        ),
    ],
}
IMPATIENT = {"TEST_MODULE": "tests.workloads.impatient_unit"}


def endless(store: Path, model: str = "gpt2", **training: int) -> Manifest:
    manifest = a_manifest(store, model, steps=ENDLESS, **training)
    manifest["spec"]["model"]["config"] = UNEVEN[model]
    return manifest


def go_to(agent: Agent, run: Attempt, plan: str) -> None:
    """Have the attempt go over to a plan, whatever its number of ranks."""
    before, times = len(run.ranks), len(run.changes())
    worn = times > 0 and growth(run.changes()[-1]) < 0
    agent.add(run, plan)
    leaving = run.shrink(plan)
    change = run.changed(times + 1)[-1]
    assert change["to"] == plan, change
    for unit in leaving:
        found = unit.exit()
        assert (found["outcome"], found["step"]) == ("Stopped", change["step"])
        assert found["message"] == f"left: training goes on on {len(run.ranks)} ranks"
    # A group from which ranks have gone is made anew before anything else.
    assert ("join" in change["seconds"]) is (len(run.ranks) > before or worn)
    assert ("prepare" in change["seconds"]) is (len(run.ranks) > before)


def keeps(run: Attempt, plan: str) -> None:
    """Have the attempt know that nobody is waited for any more, and tell that it trains on."""
    times = len(run.changes())
    run.ask_for(plan)
    told = run.changed(times + 1)[-1]
    assert (told["from"], told["to"], told["seconds"]) == (plan, plan, {"stood_still": 0.0})


def growth(change: dict[str, Any]) -> int:
    """By how many ranks a change has made the attempt larger."""
    after, before = (ExecutionPlan.parse(change.get(key, "dp1")).ranks for key in ("to", "from"))
    return after - before


def assert_same(run: Attempt, wanted: dict[int, float]) -> None:
    found = run.losses()
    assert sorted(found) == list(range(1, len(found) + 1)), "a step was lost or done twice"
    differences = {step: abs(loss - wanted[step]) for step, loss in found.items()}
    assert max(differences.values()) <= TOLERANCE, differences


@pytest.mark.parametrize("model", WALKS)
def test_ranks_come_and_go_and_the_losses_stay_those_of_one_rank(
    agent: Agent, store: Path, tmp_path: Path, model: str
) -> None:
    run = agent.start(endless(store, model), plan="dp1").reaches(3)
    for plan in (LONG_WALKS if WHOLE else WALKS)[model]:
        go_to(agent, run, plan)
    last = run.stop().units[0].exit()["step"]
    alone = agent.start(endless(tmp_path / "alone", model), plan="dp1").reaches(last).stop()
    assert_same(run, alone.losses())


def whole(store: Path) -> list[tuple[int, str]]:
    """Step and plan of each checkpoint."""
    found = JobCheckpoints(LocalStorage(store), "job-1").whole()
    return [(one.marker.step, one.marker.plan) for one in found]


def test_a_script_of_the_users_own_grows_and_shrinks_as_well(
    agent: Agent, store: Path, tmp_path: Path
) -> None:
    run = agent.start(a_script(store), plan="dp1").reaches(3)
    for plan in ("dp2-z3", "dp1"):
        go_to(agent, run, plan)
    last = run.stop().units[0].exit()["step"]
    alone = agent.start(a_script(tmp_path / "alone"), plan="dp1")
    assert_same(run, alone.reaches(last).stop().losses())


def test_checkpoints_are_written_before_and_after_and_gone_on_from(
    agent: Agent, store: Path, tmp_path: Path
) -> None:
    held = {"TEST_MODULE": "tests.workloads.held_writing_unit"}
    manifest = endless(store, everySteps=2, keep=1000)
    run = agent.start(manifest, 2, plan="dp2-z3", environment=held).reaches(3)
    before = "dp2-z3"
    for times, plan in enumerate(("tp2-pp2.1f1b-ga4", "dp2-z1"), 1):
        go_to(agent, run, plan)
        at = run.changes()[-1]["step"]
        for unit in run.units[:2]:
            # It was being written when they came or went, and was not lost.
            settled = [int(step) for step in (unit.folder / "settled").read_text().split()]
            assert (len(settled), settled[-1]) == (times, at - at % 2)
        assert (settled[-1], before) in whole(store)
        until(lambda at=at: whole(store)[-1][0] > at, lambda: run.units[0].output)  # type: ignore[misc]
        assert whole(store)[-1][1] == plan
        before = plan
    last = run.stop().units[0].exit()["step"]
    assert whole(store)[-1] == (last, "dp2-z1")
    again = agent.start(endless(store), plan="dp1", attempt=2).reaches(last + 3).stop()
    alone = agent.start(endless(tmp_path / "alone"), plan="dp1")
    wanted = alone.reaches(max(again.losses()) + 1).stop().losses()
    for step, loss in (run.losses() | again.losses()).items():
        assert loss == pytest.approx(wanted[step], abs=TOLERANCE)


def on_the_board(run: Attempt, key: str) -> bool:
    """Whether something is on the ranks' notice board."""
    host, _, port = (run.units[0].folder / "rendezvous").read_text().rpartition(":")
    board = dist.TCPStore(host, int(port), None, is_master=False, wait_for_workers=False)
    return bool(dist.PrefixStore("job-1/1", board).check([key]))


def test_newcomers_are_told_to_come_when_what_is_being_saved_has_settled_on_all_ranks(
    agent: Agent, store: Path
) -> None:
    slow = {"TEST_MODULE": "tests.workloads.held_settle_unit", "TEST_HELD": "1"}
    run = agent.start(endless(store, everySteps=2), 2, plan="dp2", environment=slow).reaches(3)
    newcomers = agent.add(run, "dp4")
    held = run.units[1].folder
    until((held / "settling").exists, lambda: run.units[1].output)
    step = max(run.losses())
    until(lambda: on_the_board(run, f"plan/{step}/settled/0"), lambda: run.units[0].output)
    assert not on_the_board(run, f"plan/{step}/go")
    assert not any(on_the_board(run, f"join/{number}") for number in (2, 3))
    assert all("ready to join" in unit.output.splitlines()[-1] for unit in newcomers)
    (held / "settle").touch()
    (change,) = run.changed(1)
    assert (change["to"], change["step"]) == ("dp4", step)
    assert all(on_the_board(run, f"join/{number}") for number in (2, 3))


def test_a_newcomer_of_an_agent_that_knows_of_none_waits_and_disturbs_nobody(
    agent: Agent, store: Path
) -> None:
    run = agent.start(endless(store), plan="dp1").reaches(2)
    (older,) = agent.add(run, "dp2", says_joins=False)
    until(lambda: "joined the rendezvous" in older.output, lambda: older.output)
    run.ranks.pop()
    keeps(run, "dp1")
    go_to(agent, run, "dp2")
    assert alive(older.pid)
    assert not on_the_board(run, "failure")
    run.stop()
    assert run.units[0].exit()["step"] == max(run.losses())
    assert older.exit()["outcome"] == "Stopped"


def test_who_cannot_join_is_refused_and_training_goes_on(
    agent: Agent, store: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.write_text("another text " * 100)
    other_data, elsewhere = endless(store), endless(tmp_path / "other-disk")
    other_data["spec"]["data"]["source"] = str(text)
    run = agent.start(endless(store), plan="dp1").reaches(2)
    cases = [
        (other_data, "StartRefused", "rank 1 differs from rank 0"),
        (elsewhere, "CheckpointStoreNotShared", "is not shared: node node-1"),
    ]
    for told_before, (manifest, reason, sentence) in zip((0, 2), cases, strict=True):
        (newcomer,) = agent.add(run, "dp2", manifest=manifest, environment=IMPATIENT)
        assert newcomer.exit()["reason"] == reason
        told = run.changed(told_before + 1)[-1]
        assert told["to"] == "dp2"
        assert sentence in told["refused"]
        assert sentence in newcomer.exit()["message"]
        run.ranks.pop()
        keeps(run, "dp1")
        run.reaches(max(run.losses()) + 2)
    # Neither of them stands in the way of one that can.
    go_to(agent, run, "dp2")
    assert not list((store / "job-1").glob("proof-*"))
    run.stop()
    assert {found["outcome"] for found in (unit.exit() for unit in run.ranks)} == {"Stopped"}


def waiting(agent: Agent, run: Attempt) -> Unit:
    """A newcomer that is ready, while another one, without which nothing happens, is not."""
    newcomer = agent.add(run, "dp4", only_first=True)[0]
    until(lambda: "ready to join" in newcomer.output, lambda: newcomer.output)
    return newcomer


def test_a_stop_stops_those_that_wait_as_well(agent: Agent, store: Path) -> None:
    run = agent.start(endless(store), 2, plan="dp2").reaches(2)
    newcomer = waiting(agent, run)
    for unit in run.units[:2]:
        (unit.folder / "stop").touch()
    found = newcomer.exit()
    assert (found["outcome"], found["message"]) == ("Stopped", "was not needed any more")
    assert {unit.exit()["step"] for unit in run.units[:2]} == {max(run.losses())}
    assert not list((store / "job-1").glob("proof-*"))


@pytest.mark.failure
def test_kill_9_of_a_newcomer_that_waits_costs_nothing(agent: Agent, store: Path) -> None:
    run = agent.start(endless(store), 2, plan="dp2", environment=IMPATIENT).reaches(2)
    waiting(agent, run).kill()
    (told,) = run.changed(1)
    assert told["refused"] == "rank 2 cannot join: it gives no sign of life any more"
    del run.ranks[2:]
    keeps(run, "dp2")
    keeps(run, "dp2")  # an answer to each time that it is asked, not to each plan
    go_to(agent, run, "dp4")
    go_to(agent, run, "dp1")


@pytest.mark.failure
def test_who_waits_and_is_stopped_once_rank_0_has_died_has_not_failed(
    agent: Agent, store: Path
) -> None:
    run = agent.start(endless(store), 2, plan="dp2").reaches(2)
    newcomer = waiting(agent, run)
    os.kill(newcomer.pid, signal.SIGSTOP)
    run.units[0].kill()
    run.units[1].exit()
    (newcomer.folder / "stop").touch()
    os.kill(newcomer.pid, signal.SIGCONT)
    found = newcomer.exit()
    assert (found["outcome"], found["message"]) == ("Stopped", "was not needed any more")


@pytest.mark.failure
def test_who_waits_and_finds_rank_0_gone_says_so(agent: Agent, store: Path) -> None:
    run = agent.start(endless(store), 2, plan="dp2").reaches(2)
    newcomer = waiting(agent, run)
    run.units[0].kill()
    found = newcomer.exit()
    assert (found["outcome"], found["reason"]) == ("Failed", "RankLost")
    assert found["message"].startswith("rank 0 could not be reached any more while this unit")


@pytest.mark.failure
@pytest.mark.parametrize(
    ("phase", "call", "victim"),
    [
        ("meeting", 1, 1),
        ("allocate", 2, 0),
        *([("meeting", 1, 0), ("allocate", 1, 2), ("let_go", 1, 0), ("let_go", 1, 2)] * WHOLE),
    ],
)
def test_kill_9_in_the_midst_of_it_ends_all_and_resumes_from_a_whole_state(
    agent: Agent, store: Path, phase: str, call: int, victim: int
) -> None:
    told = {
        "TEST_MODULE": "tests.workloads.killed_in_resize",
        "TEST_PHASE": phase,
        "TEST_CALL": str(call),
        "TEST_VICTIM": str(victim),
    }
    manifest = endless(store, everySteps=40)
    run = agent.start(manifest, plan="dp1", environment=told).reaches(41)
    if phase == "let_go":
        agent.add(run, "tp2-pp2.1f1b-ga4", environment=told)
        run.changed(1)
        run.shrink("dp1")
    else:
        agent.add(run, "dp4", environment=told)
    for unit in run.units:
        if unit is not run.units[victim]:
            found = unit.exit()
            assert (found["outcome"], found["reason"]) == ("Failed", "RankLost"), found
    newest, _ = whole(store)[-1]
    again = agent.start(manifest, 2, attempt=2).reaches(newest + 2)
    assert min(again.losses()) == newest + 1
    again.stop().exits()
