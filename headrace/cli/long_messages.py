"""Messages that fill a screen, such as the end of a traceback: told once, and not in a cell."""

import textwrap
from collections.abc import Iterator

_CHARACTERS_MAX = 320
"""Of what is told in a cell."""
_LINES_MAX = 2
_INDENT = "    "


def is_long(text: str) -> bool:
    """Whether it would be a column of its own, many lines long."""
    return len(text) > _CHARACTERS_MAX or text.strip().count("\n") >= _LINES_MAX


def brief(text: str) -> str:
    """A long text's first line and its last one, which is where an error says what it is."""
    if not is_long(text):
        return text
    lines = text.strip().splitlines()
    half = _CHARACTERS_MAX // 2
    return f"{lines[0][:half].rstrip()} … {lines[-1][-half:].lstrip()}"


class LongMessages:
    """What has been told of one object, so that it is not told again."""

    def __init__(self, told: str) -> None:
        """``told`` is what stands above already."""
        self._told = told
        self._below: dict[str, str] = {}

    def cell(self, name: str, text: str) -> str:
        """What to say in the row ``name``: the text, or where it is told if it is long."""
        if not is_long(text):
            return text
        if text in self._told:
            return "as said above"
        first = self._below.setdefault(text, name)
        return "see below" if first == name else f"as {first}"

    def below(self, width: int) -> Iterator[str]:
        """Lines that tell what the cells left out."""
        for text, name in self._below.items():
            yield ""
            yield f"{name}:"
            for line in text.strip().splitlines():
                yield from textwrap.wrap(
                    line,
                    width,
                    initial_indent=_INDENT,
                    subsequent_indent=_INDENT,
                    replace_whitespace=False,
                    break_on_hyphens=False,
                )
