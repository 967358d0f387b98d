"""What torch keeps to itself is used in one file, which names the versions it was checked with."""

import ast
import re
from collections.abc import Iterator

from tests.architecture.source_tree import ROOT, python_files

ALLOWED = "headrace/workloads/training/stored_form.py"
_ALIASES = ("torch", "dist", "dcp", "F")


def private_uses(source: str) -> Iterator[str]:
    """Names below torch's packages that begin with an underscore."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            names = [f"{node.module}.{each.name}" for each in node.names]
        elif isinstance(node, ast.Import):
            names = [each.name for each in node.names if each.name.partition(".")[0] == "torch"]
        elif isinstance(node, ast.Attribute):
            whole = ast.unparse(node)
            names = [whole] if re.fullmatch(rf"({'|'.join(_ALIASES)})(\.\w+)+", whole) else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value] if re.fullmatch(r"(torch[\w.]*)?\._[a-z]\w*", node.value) else []
        yield from (name for name in names if re.search(r"\._[a-z]", name))


def test_private_names_of_torch_stay_in_one_file() -> None:
    found = {
        name
        for name in python_files("headrace", "benchmarks", "examples")
        if any(private_uses((ROOT / name).read_text(encoding="utf-8")))
    }
    assert found == {ALLOWED}
    assert "Checked with torch" in (ROOT / ALLOWED).read_text(encoding="utf-8")


def test_a_private_name_is_found_however_it_is_written() -> None:
    for source in (
        "from torch.distributed._tensor import DTensor",
        "import torch._dynamo",
        "import torch.distributed as dist\ndist.distributed_c10d._abort()",
        "import torch\ntorch.cuda._lazy_init()",
        'import importlib\nimportlib.import_module("torch.distributed._composable")',
    ):
        assert list(private_uses(source)), source
    assert not list(private_uses("import torch\ntorch.cuda.synchronize()\nself._torch._x()"))
