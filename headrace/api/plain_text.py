"""Text that a terminal only shows: what a job prints must not steer its reader's terminal."""

import re

_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, movements, clearing
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # titles, links, the clipboard
)
_CONTROLS = dict.fromkeys(
    code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
)


def plain(text: str) -> str:
    """The text without control characters (C0, C1), save for line breaks and tabs.

    Sequences for terminals go as a whole, so that no rest of them stands in the text.
    """
    return _SEQUENCE.sub("", text).translate(_CONTROLS)
