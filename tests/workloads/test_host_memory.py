"""Whether memory that was freed is used again, as the kernel counts it."""

import subprocess
import sys

import pytest

from headrace.workloads.host_memory import may_offload

SIZE = 96 * 2**20
"""More than an arena of a thread takes."""

PROGRAM = f"""
import ctypes, resource, sys, threading
from headrace.workloads.host_memory import keep_freed

if sys.argv[1] == "kept":
    keep_freed()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p

def faults_of_a_turn():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    taken = library.malloc(ctypes.c_size_t({SIZE}))
    ctypes.memset(taken, 1, {SIZE})
    library.free(ctypes.c_void_p(taken))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def work():
    faults_of_a_turn()
    print(faults_of_a_turn())

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def faults(choice: str) -> int:
    command = [sys.executable, "-c", PROGRAM, choice]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="another C library")
def test_freed_memory_is_used_again_by_other_threads_too() -> None:
    assert faults("kept") < 100
    assert faults("left alone") > 100, "this C library needs none of it"


@pytest.mark.parametrize(
    ("plan", "plans", "asked"),
    [
        ("dp1", ["dp1", "dp2-z2-offload"], True),
        ("dp1-z2-offload", [], True),
        ("dp2", ["dp2", "tp2"], False),
        ("", [], False),
    ],
)
def test_memory_is_kept_only_where_a_plan_of_the_job_offloads(
    plan: str, plans: list[str], asked: bool
) -> None:
    assert may_offload({"plans": plans}, plan) is asked
