"""The layout in the store: what counts as a checkpoint, and who may make one."""

import errno
import json
import os
from pathlib import Path

import pytest
from fsspec.registry import known_implementations

from headrace.api.runtime import STORE_SCHEMES
from headrace.workloads import checkpoints as cli
from headrace.workloads.checkpoints import FORMAT_VERSION, JobCheckpoints, Marker
from headrace.workloads.refusal import WorkloadError
from headrace.workloads.storage import LocalStorage, Storage, UrlStorage, open_storage

UID = "job-1"


@pytest.fixture(params=["path", "memory-url"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """The same tests on a directory and on a store behind a URL."""
    if request.param == "path":
        return LocalStorage(tmp_path)
    return UrlStorage(f"memory://{tmp_path.name}")


def committed(
    job: JobCheckpoints, step: int, attempt: int = 1, written: dict[str, int] | None = None
) -> Marker:
    """A checkpoint with two files of tensors."""
    folder = job.draft_folder(step, attempt)
    job.storage.write(f"{folder}/.metadata", b"names")
    job.storage.write(f"{folder}/__0_0.distcp", b"tensors" * step)
    return job.commit(
        Marker(
            step=step,
            attempt=attempt,
            plan="dp2",
            loss=1.5,
            data_fingerprint="abc",
            training={"seed": 1},
            folder=folder.rpartition("/")[2],
        ),
        written if written is not None else {"__0_0.distcp": 7 * step},
    )


def steps(job: JobCheckpoints) -> list[int]:
    return [found.marker.step for found in job.whole()]


def test_a_committed_checkpoint_is_found_with_all_it_says(storage: Storage) -> None:
    job = JobCheckpoints(storage, UID)
    marker = committed(job, 50)
    (found,) = job.whole()
    assert found.marker == marker
    assert found.marker.files == {".metadata": 5, "__0_0.distcp": 350}
    assert found.location.endswith("job-1/step-00000050/attempt-00001")


@pytest.mark.parametrize(
    ("written", "lacking"),
    [
        ({"__0_0.distcp": 700, "__1_0.distcp": 9}, r"does not see __1_0\.distcp in"),
        ({"__0_0.distcp": 701}, r"does not see __0_0\.distcp \(700 of 701 bytes\) in"),
    ],
)
def test_what_other_ranks_wrote_must_be_seen_to_be_committed(
    storage: Storage, written: dict[str, int], lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "LISTING_SECONDS", 0.0)
    job = JobCheckpoints(storage, UID)
    committed(job, 50)
    with pytest.raises(WorkloadError, match=lacking) as refused:
        committed(job, 100, written=written)
    assert refused.value.code == "CheckpointFailed"
    assert steps(job) == [50]


def test_every_name_above_the_tensors_is_safe_before_the_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(tmp_path)
    folder = tmp_path / JobCheckpoints(storage, UID).draft_folder(50, 1)
    folder.mkdir(parents=True)
    (folder / "__0_0.distcp").write_bytes(b"tensors")  # as torch does, which syncs the file alone
    synced: list[Path] = []
    marked_after: list[set[Path]] = []
    write, sync = storage.write, os.fsync

    def noted_sync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    def noted_write(path: str, content: bytes) -> None:
        if path.endswith("COMMITTED"):
            marked_after.append(set(synced))
        write(path, content)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(storage, "write", noted_write)
    marker = Marker(50, 1, "dp1", 1.5, "abc", {}, folder.name)
    JobCheckpoints(storage, UID).commit(marker, {"__0_0.distcp": 7})
    (before,) = marked_after
    assert before >= {folder, folder.parent, tmp_path / UID, tmp_path}


def test_what_is_seen_later_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    job = JobCheckpoints(storage, UID)

    def later(seconds: float) -> None:
        storage.write(f"{job.draft_folder(100, 1)}/__1_0.distcp", b"other's")

    monkeypatch.setattr("headrace.workloads.checkpoints.time.sleep", later)
    assert committed(job, 100, written={"__1_0.distcp": 7}).files["__1_0.distcp"] == 7


def test_without_a_marker_there_is_no_checkpoint(storage: Storage) -> None:
    job = JobCheckpoints(storage, UID)
    committed(job, 50)
    storage.write(f"{job.draft_folder(100, 1)}/__0_0.distcp", b"half")
    assert steps(job) == [50]
    assert job.clean() == [100]
    assert job.steps() == [50]


@pytest.mark.parametrize("damage", ["truncated", "missing", "torn-marker", "empty-marker"])
def test_a_damaged_checkpoint_does_not_count_and_is_set_aside(
    storage: Storage, damage: str
) -> None:
    job = JobCheckpoints(storage, UID)
    committed(job, 50)
    committed(job, 100)
    folder = f"{UID}/step-00000100"
    match damage:
        case "truncated":
            storage.write(f"{folder}/attempt-00001/__0_0.distcp", b"tensors")
        case "missing":
            storage.remove(f"{folder}/attempt-00001/.metadata")
        case "torn-marker":
            content = storage.read(f"{folder}/COMMITTED")
            assert content is not None
            storage.write(f"{folder}/COMMITTED", content[:40])
        case _:
            storage.write(f"{folder}/COMMITTED", b"")
    assert steps(job) == [50]
    assert job.set_damaged_aside(4) == [100]
    assert job.clean() == []
    assert job.steps() == [50]
    aside = f"{UID}/damaged-step-00000100-by-00004"
    assert storage.names(aside) == ["COMMITTED", "attempt-00001"]


def test_the_newest_are_kept(storage: Storage) -> None:
    job = JobCheckpoints(storage, UID)
    for step in (10, 20, 30, 40):
        committed(job, step)
    assert job.keep_newest(2) == [10, 20]
    assert steps(job) == [30, 40]
    assert job.keep_newest(2) == []


def test_an_older_attempt_can_neither_claim_nor_commit(storage: Storage) -> None:
    old, new = JobCheckpoints(storage, UID), JobCheckpoints(storage, UID)
    old.claim(1)
    committed(old, 10)
    new.claim(2)
    with pytest.raises(WorkloadError, match="attempt 2 has taken over") as refused:
        committed(old, 20)
    assert refused.value.code == "FencedByNewerAttempt"
    assert steps(new) == [10]
    with pytest.raises(WorkloadError, match="attempt 2 has taken over"):
        old.claim(1)
    new.claim(2)  # the same attempt again is harmless


def test_an_older_attempt_cannot_damage_the_tensors_of_a_newer_one(storage: Storage) -> None:
    job = JobCheckpoints(storage, UID)
    job.claim(2)
    committed(job, 20, attempt=2)
    # The old attempt was frozen before it looked at the claim, and wakes up in the middle.
    storage.write(f"{job.draft_folder(20, 1)}/__0_0.distcp", b"stale")
    assert steps(job) == [20]
    assert job.clean() == []
    assert storage.names(f"{UID}/step-00000020") == ["COMMITTED", "attempt-00002"]


def test_a_newer_format_is_refused_with_a_sentence(storage: Storage) -> None:
    job = JobCheckpoints(storage, UID)
    committed(job, 50)
    content = json.loads(storage.read(f"{UID}/step-00000050/COMMITTED") or b"")
    content["format_version"] = FORMAT_VERSION + 1
    content["something_new"] = True
    storage.write(f"{UID}/step-00000050/COMMITTED", json.dumps(content).encode())
    with pytest.raises(WorkloadError, match=f"format {FORMAT_VERSION + 1}.*newer release"):
        job.whole()
    with pytest.raises(WorkloadError, match="newer release"):
        job.clean()
    assert job.steps() == [50]


def test_a_nonce_is_seen_only_where_the_store_is_the_same(tmp_path: Path) -> None:
    here = JobCheckpoints(LocalStorage(tmp_path / "a"), UID)
    elsewhere = JobCheckpoints(LocalStorage(tmp_path / "b"), UID)
    nonce = here.prove(3)
    assert here.sees(3, nonce)
    assert not elsewhere.sees(3, nonce)
    here.end_proof(3)
    assert not here.sees(3, nonce)


@pytest.mark.parametrize("uid", ["", "../x", "a/b", "-", "."])
def test_a_uid_that_is_no_folder_name_is_refused(tmp_path: Path, uid: str) -> None:
    with pytest.raises(WorkloadError, match="wanted a job's uid"):
        JobCheckpoints(LocalStorage(tmp_path), uid)


def test_list_and_purge_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    committed(JobCheckpoints(LocalStorage(tmp_path), UID), 10)
    other = JobCheckpoints(LocalStorage(tmp_path), "job-2")
    committed(other, 10)
    assert cli.main(["list", "--store", str(tmp_path), "--uid", UID]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["step"] == 10
    (tmp_path / "no job's folder").mkdir()
    assert cli.main(["list", "--store", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {json.loads(line)["uid"] for line in lines} == {UID, "job-2"}
    with pytest.raises(SystemExit):
        cli.main(["purge", "--store", str(tmp_path)])
    assert "wanted --uid" in capsys.readouterr().err
    assert (
        cli.main(["purge", "--store", tmp_path.name, "--base", str(tmp_path.parent), "--uid", UID])
        == 0
    )
    assert json.loads(capsys.readouterr().out) == {"uid": UID, "purged": 1}
    assert not (tmp_path / UID).exists()
    assert steps(other) == [10]


def test_paths_and_urls_name_stores(tmp_path: Path) -> None:
    assert open_storage("runs", tmp_path).name == str(tmp_path / "runs")
    assert open_storage(f"file://{tmp_path}/runs").name == str(tmp_path / "runs")
    assert open_storage("memory://somewhere").name == "memory://somewhere"


@pytest.mark.parametrize(
    ("url", "code", "sentence"),
    [
        ("foo://me:secret@bucket/runs", "CannotBeTrained", "got foo://bucket/runs: .*not known"),
        ("absent://bucket", "StartRefused", "absent://bucket needs a package.*: Install absentfs"),
    ],
)
def test_a_store_that_nothing_opens_is_told(
    url: str, code: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"class": "absentfs.Absent", "err": "Install absentfs"}
    monkeypatch.setitem(known_implementations, "absent", told)
    with pytest.raises(WorkloadError, match=sentence) as refused:
        open_storage(url)
    assert refused.value.code == code
    assert "secret" not in refused.value.message


def test_the_schemes_that_manifests_may_name_are_fsspecs() -> None:
    added_by_packages = {"abfss", "tos"}
    assert set(known_implementations) | added_by_packages >= STORE_SCHEMES
    assert {"s3", "gs", "abfs", "hdfs"} <= STORE_SCHEMES


class Small(LocalStorage):
    """Has no room beside what is not finished."""

    def write(self, path: str, content: bytes) -> None:
        if self.names(f"{UID}/step-00000020"):
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(path, content)


def test_what_is_not_finished_gives_way_to_a_claim(tmp_path: Path) -> None:
    job = JobCheckpoints(LocalStorage(tmp_path), UID)
    job.claim(1)
    committed(job, 10)
    job.storage.write(f"{job.draft_folder(20, 1)}/__0_0.distcp", b"half")
    small = JobCheckpoints(Small(tmp_path), UID)
    small.claim(2)
    assert (small.claimed_by(), small.steps(), steps(small)) == (2, [10], [10])


def test_a_claim_that_finds_nothing_to_remove_says_that_there_is_no_room(tmp_path: Path) -> None:
    job = JobCheckpoints(Small(tmp_path), UID)
    committed(JobCheckpoints(LocalStorage(tmp_path), UID), 20)
    with pytest.raises(OSError, match="No space left"):
        job.claim(2)
    assert steps(job) == [20]
