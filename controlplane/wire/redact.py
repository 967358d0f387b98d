"""Takes what may be secret out of manifests before they are logged, exported or shown as events.

References to secrets stay: they name a secret and do not contain it. Values of environment
variables are taken out whatever their names are, since nobody can tell which of them are secret.
"""

import json
import re
from typing import Any

REDACTED = "(redacted)"
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


def event_body(body_json: str) -> str:
    """A stored event in JSON, with the manifest of its job redacted."""
    if '"manifest_json"' not in body_json:
        return body_json
    return json.dumps(_with_manifests_redacted(json.loads(body_json)), separators=(",", ":"))


def state_json(text: str) -> str:
    """A whole state in JSON, with every manifest in it redacted."""
    return json.dumps(_with_manifests_redacted(json.loads(text)), separators=(",", ":"))


def _with_manifests_redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: manifest(part)
            if key == "manifest_json" and isinstance(part, str) and part
            else _with_manifests_redacted(part)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [_with_manifests_redacted(part) for part in value]
    return value


def _without_credentials(value: Any) -> Any:
    if isinstance(value, str):
        return _CREDENTIALS.sub(f"{REDACTED}@", value)
    if isinstance(value, dict):
        return {key: _without_credentials(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_credentials(part) for part in value]
    return value
