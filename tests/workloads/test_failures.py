"""What goes wrong ends every rank with a reason, and what was committed stays."""

import errno
import math
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.workloads.checkpoints import JobCheckpoints
from headrace.workloads.refusal import MESSAGE_CHARACTERS_MAX, no_room, reason_of
from headrace.workloads.storage import LocalStorage
from tests.workloads.attempts import Agent, Attempt, a_manifest, until

ENDLESS = 100_000


def steps(store: Path, uid: str = "job-1") -> list[int]:
    return [found.marker.step for found in JobCheckpoints(LocalStorage(store), uid).whole()]


def committed_by(run: Attempt) -> set[int]:
    return {line["checkpoint_step"] for line in run.progress()}


@pytest.mark.parametrize("victim", [0, 1])
def test_kill_9_of_a_rank_costs_only_the_steps_since_the_checkpoint(
    agent: Agent, store: Path, victim: int
) -> None:
    manifest = a_manifest(store, steps=ENDLESS, everySteps=5)
    first = agent.start(manifest, 2).reaches(12)
    first.units[victim].kill()
    survivor = first.units[1 - victim].exit()
    assert (survivor["outcome"], survivor["reason"]) == ("Failed", "RankLost")
    newest = steps(store)[-1]
    second = agent.start(manifest, 1, attempt=2).reaches(newest + 3)
    assert min(second.losses()) == newest + 1
    assert second.stop().outcomes() == {("Stopped", max(second.losses()))}
    for step in first.losses().keys() & second.losses().keys():
        assert second.losses()[step] == pytest.approx(first.losses()[step], abs=1e-4)


def test_kill_9_in_any_phase_of_a_change_of_plan_resumes_from_a_whole_state(
    agent: Agent, store: Path
) -> None:
    manifest = a_manifest(store, steps=ENDLESS, everySteps=5)
    losses = agent.start(manifest, 2, plan="dp2").reaches(7).stop()
    assert len(losses.outcomes()) == 1
    before = losses.losses()
    plans = ["dp2", "pp2.1f1b-ga2", "dp2-z3", "tp2", "dp2-z2", "dp2"]
    phases = ("relaid", "allocate", "equip", "begin_at", "gradients")
    for attempt, phase in enumerate(phases, start=2):
        newest, victim = steps(store)[-1], attempt % 2
        told = {
            "TEST_MODULE": "tests.workloads.killed_in_switch",
            "TEST_PHASE": phase,
            "TEST_VICTIM": str(victim),
        }
        run = agent.start(manifest, 2, attempt=attempt, plan=plans[attempt - 2], environment=told)
        run.reaches(newest + 6).ask_for(plans[attempt - 1])
        survivor = run.units[1 - victim].exit()
        assert (survivor["outcome"], survivor["reason"]) == ("Failed", "RankLost"), phase
        assert run.changes() == []
        assert min(run.losses()) == newest + 1
        assert steps(store)[-1] >= newest, phase
        for step in before.keys() & run.losses().keys():
            assert run.losses()[step] == pytest.approx(before[step], abs=1e-4), phase
        before = run.losses()
    newest = steps(store)[-1]
    last = agent.start(manifest, 2, attempt=7, plan=plans[-1]).reaches(newest + 2).stop()
    assert {outcome for outcome, _ in last.outcomes()} == {"Stopped"}
    assert min(last.losses()) == newest + 1


def test_what_a_killed_writer_left_is_removed_by_the_next_attempt(
    agent: Agent, store: Path
) -> None:
    agent.start(a_manifest(store, steps=4, everySteps=2)).exits()
    torn = store / "job-1" / "step-00000006" / "attempt-00001"
    torn.mkdir(parents=True)
    (torn / "__0_0.distcp").write_bytes(b"half a file")
    (store / "job-1" / "proof-00001").write_bytes(b"left behind")
    run = agent.start(a_manifest(store, steps=5), attempt=2)
    assert run.outcomes() == {("Succeeded", 5)}
    assert sorted(run.losses()) == [5]
    assert "removed unfinished checkpoints of steps [6]" in run.units[0].output
    assert not torn.exists()


def test_an_attempt_that_was_superseded_may_not_commit(agent: Agent, store: Path) -> None:
    manifest = a_manifest(store, steps=ENDLESS, everySteps=10)
    old = agent.start(manifest, 2)
    until(lambda: 10 in {line["checkpoint_step"] for line in old.progress()}, lambda: "step 10")
    JobCheckpoints(LocalStorage(store), "job-1").claim(2)
    # Both ranks end, and both for the reason that only rank 0 can know.
    assert old.reasons() == {"FencedByNewerAttempt"}
    committed = steps(store)
    assert committed[0] == 10
    assert agent.start(manifest, attempt=1).reasons() == {"FencedByNewerAttempt"}
    assert steps(store) == committed


def test_a_rank_of_another_attempt_is_refused(agent: Agent, store: Path) -> None:
    manifest = a_manifest(store, steps=ENDLESS)
    host = agent.start(manifest, 2, attempt=2, only_unit=0)
    address = host.units[0].folder / "rendezvous"
    until(address.exists, lambda: host.units[0].output)
    stranger = agent.start(manifest, 2, attempt=1, only_unit=1, rendezvous=address.read_text())
    assert stranger.reasons() == {"FencedByNewerAttempt"}
    other_job = agent.start(
        manifest, 2, uid="job-2", attempt=2, only_unit=1, rendezvous=address.read_text()
    )
    assert other_job.reasons() == {"FencedByNewerAttempt"}
    # The host was not disturbed: its own rank 1 still gets its place, and only once.
    right = agent.start(manifest, 2, attempt=2, only_unit=1, rendezvous=address.read_text())
    host.reaches(2)
    twice = agent.start(manifest, 2, attempt=2, only_unit=1, rendezvous=address.read_text())
    assert twice.reasons() == {"FencedByNewerAttempt"}
    host.reaches(max(host.losses()) + 2).stop()
    assert host.outcomes() == right.outcomes()


def test_a_store_that_is_not_shared_is_found_out_before_training(
    agent: Agent, store: Path, tmp_path: Path
) -> None:
    elsewhere = a_manifest(tmp_path / "other-disk")
    run = agent.start(a_manifest(store), 2, manifests={1: elsewhere})
    # The rank whose node it is says so, and the other that it lost that one.
    assert [found["reason"] for found in run.exits()] == ["RankLost", "CheckpointStoreNotShared"]
    for found in run.exits():
        assert "node node-1" in found["message"]
        assert str(tmp_path / "other-disk") in found["message"]
    assert run.losses() == {}


def test_data_that_a_node_lacks_is_told_by_its_rank(
    agent: Agent, store: Path, tmp_path: Path
) -> None:
    lacking = a_manifest(store)
    lacking["spec"]["data"]["source"] = str(tmp_path / "not-mounted")
    run = agent.start(a_manifest(store), 2, manifests={1: lacking})
    assert [found["reason"] for found in run.exits()] == ["RankLost", "StartRefused"]
    told, _ = run.exits()
    assert told["message"].startswith("rank 1 cannot start, StartRefused: wanted python-stdlib")
    assert run.losses() == {}


def test_ranks_with_different_data_do_not_train_together(
    agent: Agent, store: Path, tmp_path: Path
) -> None:
    manifests = {}
    for index, text in enumerate(["this is a text ", "that is a text "]):
        file = tmp_path / f"text-{index}"
        file.write_text(text * 100)
        manifests[index] = a_manifest(store)
        manifests[index]["spec"]["data"]["source"] = str(file)
    run = agent.start(manifests[0], 2, manifests=manifests)
    assert run.reasons() == {"StartRefused"}
    assert all("rank 1 differs from rank 0" in found["message"] for found in run.exits())
    assert all("a seed for data that are drawn" in found["message"] for found in run.exits())


def test_a_plan_for_another_number_of_ranks_is_refused(agent: Agent, store: Path) -> None:
    run = agent.start(a_manifest(store), 2, plan="dp4")
    assert run.reasons() == {"CannotBeTrained"}
    assert "plan dp4 is for 4 ranks" in run.exits()[0]["message"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"precision": "fp16"}, "wanted precision fp32 or bf16, got 'fp16'"),
        ({"learningRate": 1e9, "warmupSteps": 0, "steps": 60}, "training has come apart"),
    ],
)
def test_what_cannot_be_trained_says_why(
    agent: Agent, store: Path, change: dict[str, Any], sentence: str
) -> None:
    run = agent.start(a_manifest(store, **change))
    (found,) = run.exits()
    assert found["outcome"] == "Failed"
    assert sentence in found["message"]


def test_a_full_disk_costs_checkpoints_and_the_training_goes_on(agent: Agent, store: Path) -> None:
    run = agent.start(a_manifest(store, steps=ENDLESS, everySteps=40), 2)
    until(lambda: 40 in committed_by(run), lambda: run.units[0].output)
    # No file of this process can grow beyond this size from now on, as on a full disk.
    _, most = resource.prlimit(run.units[0].pid, resource.RLIMIT_FSIZE)
    resource.prlimit(run.units[0].pid, resource.RLIMIT_FSIZE, (20_000, most))
    until(lambda: "WARNING CheckpointStoreFull" in run.units[0].output, lambda: "a warning")
    newest = max(committed_by(run))
    run.reaches(max(run.losses()) + 2)
    assert f"the newest is that of step {newest}" in run.units[0].output
    assert "the store has no room for" in run.units[0].output
    resource.prlimit(run.units[0].pid, resource.RLIMIT_FSIZE, (most, most))
    until(lambda: max(committed_by(run)) > newest, lambda: run.units[0].output)
    (told, *_) = run.changes()
    assert (told["reason"], told["missed"] > newest) == ("CheckpointStoreFull", True)
    assert told["message"].startswith(f"the newest is that of step {newest}; ")
    run.stop()
    assert {found["outcome"] for found in run.exits()} == {"Stopped"}


def test_a_stop_that_cannot_be_saved_fails_and_leaves_the_checkpoint_before(
    agent: Agent, store: Path
) -> None:
    manifest = a_manifest(store, steps=ENDLESS, everySteps=40)
    run = agent.start(manifest, 2)
    until(lambda: 40 in committed_by(run), lambda: run.units[0].output)
    resource.prlimit(run.units[0].pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    assert run.stop().reasons() == {"CheckpointStoreFull"}
    for found in run.exits():
        assert "the store has no room for" in found["message"]
        assert str(store) in found["message"]
    newest = steps(store)[-1]
    assert newest == max(committed_by(run))
    resumed = agent.start(manifest, attempt=2).reaches(newest + 2)
    assert min(resumed.losses()) == newest + 1
    resumed.stop().exits()


@pytest.mark.parametrize("name", ["__1_0.distcp", ".metadata"])
def test_flipped_bytes_are_noticed_and_training_goes_on_from_the_checkpoint_before(
    agent: Agent, store: Path, name: str
) -> None:
    manifest = a_manifest(store, steps=8, everySteps=2)
    first = agent.start(manifest, 2, plan="dp2-z3")
    first.exits()
    longer = a_manifest(store, steps=10, everySteps=5)
    (file,) = (store / "job-1" / "step-00000008").glob(f"*/{name}")
    content = bytearray(file.read_bytes())
    # In a tensor's own bytes, after the padding that aligns them: only a checksum can tell.
    tensor = re.search(rb"/data/0FB..Z*", content, re.DOTALL)
    content[tensor.end() + 2 if tensor else len(content) // 2] ^= 1
    file.write_bytes(content)
    second = agent.start(longer, 2, attempt=2)
    assert second.outcomes() == {("Succeeded", 10)}
    assert sorted(second.losses()) == [7, 8, 9, 10]
    assert "WARNING CheckpointCorrupt" in second.units[0].output
    aside = store / "job-1" / "damaged-step-00000008-by-00002"
    assert (aside / file.parent.name / name).read_bytes() == content


def test_another_jobs_checkpoint_with_flipped_bytes_is_refused_and_left_alone(
    agent: Agent, store: Path
) -> None:
    agent.start(a_manifest(store, steps=2)).exits()
    (file,) = (store / "job-1" / "step-00000002").glob("*/__0_0.distcp")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    manifest = a_manifest(store, startFrom={"uid": "job-1"})
    run = agent.start(manifest, 2, uid="job-2")
    assert run.reasons() == {"CheckpointCorrupt"}
    assert all("startFrom" in found["message"] for found in run.exits())
    assert file.read_bytes() == content


def test_after_a_loss_that_is_not_finite_one_older_checkpoint_is_tried(
    agent: Agent, store: Path
) -> None:
    calm = a_manifest(store, steps=ENDLESS, everySteps=4)
    run = agent.start(calm)
    until(lambda: 8 in committed_by(run), lambda: run.units[0].output)
    run.stop().exits()
    *_, before, newest = steps(store)
    # Settings that may change within a job, and with which no step goes well.
    wild = a_manifest(store, steps=ENDLESS, everySteps=50, learningRate=1e9, warmupSteps=0)
    first = agent.start(wild, attempt=2)
    assert first.reasons() == {"LossNotFinite"}
    (found,) = first.exits()
    assert f"The checkpoint of step {newest} was set aside" in found["message"]
    assert (store / "job-1" / f"suspect-step-{newest:08d}-by-00002").is_dir()
    second = agent.start(wild, attempt=3)
    assert second.reasons() == {"LossNotFinite"}
    assert min(second.losses()) == before + 1
    # The fault is not in the checkpoint, so no other one is doubted.
    assert "set aside" not in second.exits()[0]["message"]
    assert steps(store)[-1] == before


def test_weights_that_the_last_step_ruins_are_no_success(agent: Agent, store: Path) -> None:
    manifest = a_manifest(store, steps=1, learningRate=1e39, warmupSteps=0)
    run = agent.start(manifest, 2, plan="dp2-z3")
    assert run.reasons() == {"LossNotFinite"}
    assert math.isfinite(run.losses()[1])
    assert "after the last step, 1, weights or moments" in run.exits()[0]["message"]
    assert steps(store) == []


def test_running_out_of_memory_has_a_reason_of_its_own(agent: Agent, store: Path) -> None:
    manifest = a_manifest(store, globalBatchSize=4)
    manifest["spec"]["model"]["config"] = {
        "numHiddenLayers": 1,
        "hiddenSize": 32768,
        "numAttentionHeads": 1,
    }
    # 32768^2 x 12 weights of 4 bytes are 51 GB, against an address space of 40 GiB.
    run = agent.start(manifest, environment={"TEST_ADDRESS_SPACE_BYTES": str(40 * 2**30)})
    assert run.reasons() == {"OutOfMemory"}


def test_reasons_are_told_from_what_was_raised() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = full
    assert no_room(wrapped) is full
    assert no_room(OSError(errno.EPERM, "not permitted")) is None
    assert reason_of(MemoryError())[0] == "OutOfMemory"
    assert reason_of(RuntimeError("CUDA out of memory. Tried to allocate"))[0] == "OutOfMemory"
    assert reason_of(ValueError("boom")) == ("RankFailed", "ValueError: boom")


def test_what_was_raised_comes_before_where() -> None:
    def deep(level: int) -> None:
        if level:
            deep(level - 1)
        raise MemoryError("CUDA out of memory. Tried to allocate 20 MiB." + " Long." * 1000)

    with pytest.raises(MemoryError) as raised:
        deep(40)
    code, message = reason_of(raised.value)
    assert code == "OutOfMemory"
    assert message.startswith("MemoryError: CUDA out of memory. Tried to allocate 20 MiB.")
    assert len(message) <= MESSAGE_CHARACTERS_MAX
    assert "in deep" in message


def test_without_a_control_folder_the_unit_says_who_should_start_it() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "headrace.workloads.launch"],
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert ended.returncode == 2
    assert "HEADRACE_CONTROL_DIR is not set" in ended.stderr
