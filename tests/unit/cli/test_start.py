"""The command line starts fast because it loads late."""

import json
import subprocess
import sys

import pytest

from headrace.cli.entry import INTERRUPTED
from headrace.cli.exit_codes import ExitCode

HEAVY = {"grpc", "google", "torch", "ray", "yaml", "rich", "sqlalchemy", "numpy"}


@pytest.mark.parametrize("arguments", [["--help"], ["apply", "--help"], ["version", "--client"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys, json\n"
        "from headrace.cli.main import app\n"
        "try:\n"
        f"    app({arguments!r})\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print('MODULES' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    text, _, loaded = ran.stdout.partition("MODULES")
    assert text.strip()
    # Typer itself takes pydantic to read the arguments of a command, but not for the main help.
    heavy = HEAVY | {"pydantic"} if arguments == ["--help"] else HEAVY
    assert heavy & set(json.loads(loaded)) == set()


def test_help_documents_every_exit_status() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "headrace.cli.main", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for status in ("0", "1", "2", "3", "4", "5", "6", "7", "130"):
        assert f"\n    {status} " in ran.stdout


@pytest.mark.parametrize("module", ["typer", "headrace.cli.session"])
def test_ctrl_c_while_it_still_loads_is_told_in_a_word(module: str) -> None:
    program = (
        "import sys\n"
        "class Pressed:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Pressed())\n"
        "from headrace.cli.entry import run\n"
        "run()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (INTERRUPTED, "", "interrupted\n")
    assert INTERRUPTED == ExitCode.INTERRUPTED
