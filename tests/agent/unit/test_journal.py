"""What an agent remembers survives its death at any byte."""

import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import journal as module
from agent.desired import Memory, UnitKey
from agent.journal import Journal, JournalDamagedError

FIRST, SECOND = UnitKey("job", 1, 0), UnitKey("job", 2, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.jsonl"


def reopened(path: Path) -> Journal:
    again = Journal(path)
    again.close()
    return again


def written(path: Path) -> Journal:
    journal = Journal(path)
    journal.obey(1, 4)
    journal.start(FIRST, ("a",))
    journal.release([FIRST])
    journal.start(SECOND, ("a", "b"))
    journal.purge("old")
    journal.close()
    return journal


def test_it_remembers(path: Path) -> None:
    before = written(path)
    after = reopened(path)
    assert after.memory == before.memory
    assert after.memory == Memory(
        highest=(1, 4),
        highest_attempts={"job": 2},
        started=frozenset({FIRST, SECOND}),
        purged=frozenset({"old"}),
    )
    assert after.unreleased() == {SECOND: ("a", "b")}


def test_a_lower_number_is_not_remembered(path: Path) -> None:
    journal = Journal(path)
    journal.obey(2, 1)
    journal.obey(1, 9)
    journal.close()
    assert reopened(path).memory.highest == (2, 1)


def test_a_last_line_torn_at_any_byte_is_cut_off(path: Path) -> None:
    written(path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    before = len(whole) - len(lines[-1])
    for end in range(before, len(whole)):
        path.write_bytes(whole[:end])
        assert reopened(path).memory.purged == frozenset()
        assert path.read_bytes() == whole[:before]
    # And it goes on from there.
    journal = Journal(path)
    journal.purge("again")
    journal.close()
    assert reopened(path).memory.purged == {"again"}


def test_damage_in_the_middle_is_not_ignored(path: Path) -> None:
    written(path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = b"garbage\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalDamagedError, match="start a rank twice"):
        Journal(path)


def test_a_full_disk_leaves_no_half_line(path: Path) -> None:
    journal = Journal(path)
    journal.start(FIRST, ("a",))
    # A soft limit on the size of files stands in for the disk: half of the next line fits.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
        with pytest.raises(OSError, match=r"File too large|only a part"):
            journal.start(SECOND, ("a",))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert SECOND not in journal.memory.started
    journal.start(SECOND, ("a",))
    journal.close()
    assert reopened(path).unreleased() == {FIRST: ("a",), SECOND: ("a",)}


def test_it_stays_small_and_keeps_what_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPACT_AFTER_LINES", 20)
    journal = Journal(path)
    for attempt in range(1, 101):
        key = UnitKey("job", attempt, 0)
        journal.start(key, ("a",))
        if attempt < 100:
            journal.release([key])
    journal.close()
    assert len(path.read_bytes().splitlines()) < 60
    after = reopened(path)
    assert after.unreleased() == {UnitKey("job", 100, 0): ("a",)}
    assert after.highest_attempts == {"job": 100}


def test_years_of_jobs_leave_a_small_file_and_what_is_not_acknowledged_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPACT_AFTER_LINES", 100)
    monkeypatch.setattr(module, "JOBS_REMEMBERED", 20)
    monkeypatch.setattr("os.fsync", lambda _: None)
    journal = Journal(path)
    sizes, remembered = [], []
    for number in range(3000):
        keys = [UnitKey(f"job-{number}", attempt, 0) for attempt in (1, 2)]
        journal.obey(1, number)
        for key in keys:
            journal.start(key, ("a",))
            journal.release([key] if number else [])
        journal.purge(f"job-{number}")
        sizes.append(path.stat().st_size)
        memory = journal.memory
        remembered.append(len(memory.started) + len(memory.purged) + len(memory.highest_attempts))
    journal.compact()
    journal.close()
    assert max(sizes[1500:]) <= 1.2 * max(sizes[:1500])
    assert max(remembered[1500:]) <= 1.2 * max(remembered[:1500])
    after = reopened(path)
    assert set(after.unreleased()) == {UnitKey("job-0", 1, 0), UnitKey("job-0", 2, 0)}
    last = [f"job-{number}" for number in range(2980, 3000)]
    assert list(after.highest_attempts) == last
    assert after.memory.highest_attempts["job-0"] == 2
    assert {UnitKey(uid, 2, 0) for uid in last} < set(after.memory.started)
    assert after.memory.purged == set(last)


def test_a_job_that_starts_again_may_be_purged_again(path: Path) -> None:
    journal = Journal(path)
    journal.purge("job")
    journal.start(FIRST, ("a",))
    journal.compact()
    journal.close()
    assert reopened(path).memory.purged == frozenset()


def test_jobs_are_kept_in_order_of_their_last_start(path: Path) -> None:
    journal = Journal(path)
    for uid, attempt in (("x", 1), ("y", 1), ("x", 2)):
        journal.start(UnitKey(uid, attempt, 0), ())
    journal.close()
    assert list(reopened(path).highest_attempts.items()) == [("y", 1), ("x", 2)]


KEYS = st.builds(UnitKey, st.sampled_from(["x", "y"]), st.integers(1, 4), st.integers(0, 1))
DEEDS = st.one_of(
    st.tuples(st.just("start"), KEYS),
    st.tuples(st.just("release"), KEYS),
    st.tuples(st.just("obey"), st.tuples(st.integers(0, 3), st.integers(0, 3))),
)


@given(st.lists(DEEDS, max_size=40))
def test_compaction_forgets_nothing_that_keeps_a_unit_from_starting_again(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[tuple[str, object]]
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / "journal.jsonl")
    for name, what in deeds:
        match name, what:
            case "start", UnitKey() as key:
                journal.start(key, ("a",))
            case "release", UnitKey() as key:
                journal.release([key])
            case "obey", (int(term), int(number)):
                journal.obey(term, number)
    before, alive = journal.memory, journal.unreleased()
    journal.compact()
    after = journal.memory
    assert journal.unreleased() == alive
    assert after.highest == before.highest
    assert after.highest_attempts == before.highest_attempts
    for key in before.started:
        assert key in after.started or key.attempt < after.highest_attempts[key.uid]
    journal.close()
