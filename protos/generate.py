"""Writes the Python stubs of ``protos/`` into ``headrace/api/generated`` (``make protos``).

grpcio-tools is pinned because stubs demand at least the grpcio that wrote them, and
Headrace runs on machines that carry grpcio 1.84.
"""

import argparse
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

SOURCE = Path(__file__).parent
TARGET = SOURCE.parent / "headrace" / "api" / "generated"
NOTE = '"""Generated from protos/ by ``make protos``. Do not edit."""\n'


def generate(target: Path) -> None:
    """Compiles every proto into ``target``, a flat package.

    Raises:
        SystemExit: protoc refused a file.
    """
    protos = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        arguments = [
            "protoc",
            f"-I{SOURCE}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--python_out={scratch}",
            f"--pyi_out={scratch}",
            f"--grpc_python_out={scratch}",
            *protos,
        ]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc refused the files above")
        target.mkdir(parents=True, exist_ok=True)
        (target / "__init__.py").write_text(NOTE)
        for written in sorted(Path(scratch).rglob("*.py*")):
            # The proto package is not a Python package of that name, so imports are redirected.
            text = re.sub(
                r"from headrace\.v1alpha1 import",
                "from headrace.api.generated import",
                written.read_text(),
            )
            (target / written.name).write_text(text)


def main() -> None:
    """Generates, or with ``--check`` says whether the checked-in stubs are current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, compare")
    if not parser.parse_args().check:
        generate(TARGET)
        return
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = {path.name: path.read_text() for path in Path(scratch).iterdir()}
    present = {path.name: path.read_text() for path in TARGET.iterdir() if path.is_file()}
    stale = sorted(
        name for name in fresh.keys() | present.keys() if fresh.get(name) != present.get(name)
    )
    if stale:
        sys.exit(f"stale stubs: {', '.join(stale)}; run `make protos`")


if __name__ == "__main__":
    main()
