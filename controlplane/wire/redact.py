"""Takes what may be secret out of manifests before they are logged, exported or shown as events.

References to secrets stay: they name a secret and do not contain it. Values of environment
variables are taken out whatever their names are, since nobody can tell which of them are secret.
"""

import json
import re
from collections.abc import Callable
from typing import Any

REDACTED = "(redacted)"
_MANIFEST = re.compile(r'("manifest_json":)("(?:[^"\\]|\\.)*")')
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


def manifest(manifest_json: str) -> str:
    """A manifest in JSON without the values of its environment and credentials in URLs."""
    found = json.loads(manifest_json)
    spec = found.get("spec")
    if isinstance(spec, dict):
        for variable in spec.get("env") or ():
            if isinstance(variable, dict) and "value" in variable:
                variable["value"] = REDACTED
    return json.dumps(_without_credentials(found), separators=(",", ":"), sort_keys=True)


def manifests_in(text: str, redacted: Callable[[str], str] = manifest) -> str:
    """JSON as ``domain.codec`` writes it, with every manifest in it redacted.

    Args:
        text: The JSON.
        redacted: ``manifest``, or the same with a memory where many are equal.
    """

    def hidden(found: re.Match[str]) -> str:
        known = json.loads(found[2])
        return found[1] + json.dumps(redacted(known)) if known else found[0]

    # Found by their key, which no text inside a string can look like: its quotes are escaped there.
    return _MANIFEST.sub(hidden, text)


def _without_credentials(value: Any) -> Any:
    if isinstance(value, str):
        return _CREDENTIALS.sub(f"{REDACTED}@", value)
    if isinstance(value, dict):
        return {key: _without_credentials(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_credentials(part) for part in value]
    return value
