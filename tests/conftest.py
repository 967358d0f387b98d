"""What holds for every test: repeatable examples, and nothing left running afterwards."""

import gc
import os
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Timings say nothing on a loaded machine. In CI every run tries the same examples, so that a red
# build can be repeated; at home each run tries new ones.
settings.register_profile("home", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("home"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "home")

# Every process inherits this, so that also those are found that left their parent.
BADGE = "HEADRACE_TEST"
GRACE_SECONDS = 15.0

ONE_WORKER_EACH = ("tests/cluster", "tests/agent/ray")
"""Folders whose tests share a cluster and a Ray: on two workers there would be two."""


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Of the tests that start real processes, those in a ``test_failures.py`` kill some."""
    if item.get_closest_marker("failure"):
        item.add_marker(pytest.mark.process)
    if item.get_closest_marker("process") and item.path.name == "test_failures.py":
        item.add_marker(pytest.mark.failure)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first, so that workers end together; the rest stays in random order."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """A whole cluster, a Ray, other processes, training in forked ones, all else."""
    if (folder := _folder(item.nodeid)) in ONE_WORKER_EACH:
        return ONE_WORKER_EACH.index(folder)
    if item.get_closest_marker("process"):
        return 2
    return 3 if folder == "tests/workloads" else 4


def _folder(nodeid: str) -> str:
    return nodeid.partition("::")[0].rpartition("/")[0]


class FoldersTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Hands tests to workers one by one, except those of folders that share what starts slowly.

    In place of xdist's groups, of which xdist 3.8 finds none below pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        folder = _folder(nodeid)
        return folder if folder in ONE_WORKER_EACH else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FoldersTogether:
    return FoldersTogether(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop() -> Generator[None, object, object]:
    """What was imported and collected is there for good: the collector need not look through it.

    At the end it may, or libraries complain of what is not taken down.
    """
    gc.freeze()
    try:
        return (yield)
    finally:
        gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _session_leaves_no_process() -> Iterator[None]:
    """Set up first and torn down last: by then the session's fixtures have ended their own."""
    badge = f"session-{uuid.uuid4()}"
    os.environ[BADGE] = badge
    yield
    _expect_gone(_wearing(badge), "the test session")
    os.environ.pop(BADGE, None)


@pytest.fixture(autouse=True)
def _test_leaves_no_process(
    request: pytest.FixtureRequest, _session_leaves_no_process: None
) -> Iterator[None]:
    """Fails the test that leaves a process. Fixtures of a wider scope were here before it."""
    before = set(_children())
    of_session = os.environ[BADGE]
    badge = f"test-{uuid.uuid4()}"
    os.environ[BADGE] = badge
    yield
    os.environ[BADGE] = of_session
    left = set(_children()) - before
    if request.node.get_closest_marker("process"):
        left |= set(_wearing(badge))  # a look at every process of the machine
    _expect_gone(left, request.node.nodeid)


def _children() -> list[psutil.Process]:
    if _has_no_child():
        return []
    children = psutil.Process().children(recursive=True)
    return [child for child in children if not _is_pythons_own(child)]


def _has_no_child() -> bool:
    """A cheap look, because psutil reads the whole process table."""
    try:
        tasks = Path("/proc/self/task").iterdir()
        return not any((task / "children").read_bytes().strip() for task in tasks)
    except OSError:  # not Linux, or a thread that just ended
        return False


def _is_pythons_own(process: psutil.Process) -> bool:
    """multiprocessing keeps one tracker for the life of the interpreter."""
    try:
        return "multiprocessing.resource_tracker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _wearing(badge: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(BADGE) == badge and not _is_pythons_own(process):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return [process for process in found if process.pid != os.getpid()]


def _expect_gone(processes: "set[psutil.Process] | list[psutil.Process]", who: str) -> None:
    """Fails, after a grace for those that are just ending, and ends what is left."""
    _, alive = psutil.wait_procs(list(processes), timeout=GRACE_SECONDS)
    names = [_described(process) for process in alive if _runs(process)]
    for process in alive:
        try:
            process.kill()
        except psutil.Error:
            continue
    if names:
        pytest.fail(f"{who} left processes running: {'; '.join(names)}", pytrace=False)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return str(process.pid)
