"""What Headrace costs where nothing happens: memory of the control plane, and time of ``--help``.

python benchmarks/at_rest.py [--rest 10] [--rounds 10]
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._processes import ROOT, a_folder, control_plane, machine

LIMIT_MB = 150.0
LIMIT_SECONDS = 0.3


def _timed(arguments: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(arguments, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rest", type=float, default=10.0, help="seconds after it is ready")
    parser.add_argument("--rounds", type=int, default=10, help="starts of each program")
    told = parser.parse_args()
    print(machine())

    with a_folder() as folder, control_plane(folder) as plane:
        time.sleep(told.rest)
        before = plane.cpu_seconds()
        time.sleep(told.rest)
        busy = (plane.cpu_seconds() - before) / told.rest
        resident = plane.resident_mb()
    light = resident < LIMIT_MB
    print(
        f"control plane at rest: {resident:.0f} MB resident, {busy:.1%} of a core; "
        f"wanted below {LIMIT_MB:.0f} MB: {'yes' if light else 'NO'}"
    )

    command = Path(sys.executable).with_name("headrace")
    bare, asked = [], []
    for _ in range(told.rounds):
        bare.append(_timed([sys.executable, "-c", "pass"]))
        asked.append(_timed([str(command), "--help"]))
    took = statistics.median(asked)
    quick = took < LIMIT_SECONDS
    print(
        f"headrace --help: {took:.3f} s, python -c pass: {statistics.median(bare):.3f} s "
        f"(medians of {told.rounds}); wanted below {LIMIT_SECONDS} s: {'yes' if quick else 'NO'}"
    )
    return 0 if light and quick else 1


if __name__ == "__main__":
    sys.exit(main())
