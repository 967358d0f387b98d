"""The command line starts fast because it loads late."""

import json
import subprocess
import sys

import pytest

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
