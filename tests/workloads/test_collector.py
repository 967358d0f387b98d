"""What the collector is kept from looking through, and what it is not."""

import gc
import subprocess
import sys
import weakref

import pytest

from headrace.workloads.collector import importing


class Knot:
    """Refers to itself, so that only the collector can end it."""

    def __init__(self) -> None:
        self.itself = self


def test_what_was_imported_is_not_looked_through_and_what_comes_later_is() -> None:
    with importing():
        assert not gc.isenabled()
        imported = weakref.ref(Knot())
    assert gc.isenabled()
    later = weakref.ref(Knot())
    gc.collect()
    assert imported() is not None
    assert later() is None


def test_an_import_that_fails_leaves_the_collector_at_work() -> None:
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()


def test_an_interpreter_takes_down_what_was_imported_when_it_ends() -> None:
    program = """
from headrace.workloads.collector import importing

class Knot:
    def __init__(self):
        self.itself = self

    def __del__(self):
        print("taken down")

with importing():
    Knot()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("taken down\n", "")
