"""Passwords in URLs. A manifest is stored, shown and handed to nodes, so it must hold none."""

import re

# Behind the colon stands a password, unless it is a port with nothing or a path after it. Secret
# keys are often pasted as they are, so that a slash does not end one, but the last @ does.
_PASSWORD = re.compile(r"(?<=://)[^/?#@:\s\[]*:(?![0-9]{0,5}(?:[/?#,;\s'\"]|$))[^\s'\"]+@")


def has_password(text: str) -> bool:
    """Whether a URL in the text has a password before its host."""
    return "://" in text and _PASSWORD.search(text) is not None


def without_passwords(text: str) -> str:
    """The text with user and password cut out of its URLs."""
    return _PASSWORD.sub("(redacted)@", text)
