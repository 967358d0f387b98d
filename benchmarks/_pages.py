"""Tables of pages in docs/, between marks that say which table is there."""

import re
from collections.abc import Sequence
from pathlib import Path


def put(page: Path, name: str, written: str) -> None:
    """Replaces what is between the marks of that name.

    Raises:
        SystemExit: The page has no such marks.
    """
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not found.search(text):
        raise SystemExit(f"{page.name} has no marks {begin} and {end}")
    text = found.sub(lambda _: f"{begin}\n\n{written.strip()}\n\n{end}", text)
    page.write_text(text, encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
