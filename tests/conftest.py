"""What holds for every test: repeatable examples, and nothing left running afterwards."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

# Timings say nothing on a loaded machine. In CI every run tries the same examples, so that a red
# build can be repeated; at home each run tries new ones.
settings.register_profile("home", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("home"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "home")

# Every process inherits this, so that also those are found that left their parent.
BADGE = "HEADRACE_TEST"
GRACE_SECONDS = 15.0


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests that start real processes share one worker, so that they never run side by side.

    Those of them that stand in a ``test_failures.py`` kill processes.
    """
    if item.get_closest_marker("failure"):
        item.add_marker(pytest.mark.process)
    if item.get_closest_marker("process"):
        if item.path.name == "test_failures.py":
            item.add_marker(pytest.mark.failure)
        item.add_marker(pytest.mark.xdist_group("process"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first; within both kinds the random order stays."""
    items.sort(key=lambda item: item.get_closest_marker("process") is not None)


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
