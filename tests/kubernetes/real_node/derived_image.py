"""An image on top of one that a node has, with a few files more: a layer, and no gigabytes moved.

containerd takes an archive whose other layers it has already.
"""

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


def derive_image(within: list[str], base: str, name: str, files: Mapping[str, bytes]) -> None:
    """Gives the node another image.

    Args:
        within: What to put before a command to run it as root of the node.
        base: The name of an image that it has.
        name: That of the new one.
        files: Contents by path, without the first slash.

    Raises:
        subprocess.CalledProcessError: containerd has no such image, or takes none.
    """

    def ctr(*words: str) -> bytes:
        command = [*within, "ctr", "--namespace=k8s.io", *words]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout

    (line,) = ctr("images", "ls", f"name=={base}").decode().splitlines()[1:]
    manifest: dict[str, Any] = json.loads(ctr("content", "get", line.split()[2]))
    settings: dict[str, Any] = json.loads(ctr("content", "get", manifest["config"]["digest"]))
    layer = _tar(files)
    settings["rootfs"]["diff_ids"].append(_digest(layer))
    # It would have to tell of the layer too.
    settings.pop("history", None)
    config = json.dumps(settings).encode()
    is_oci = manifest["mediaType"].startswith("application/vnd.oci")
    kind = _OCI_LAYER if is_oci else _DOCKER_LAYER
    manifest["layers"].append({"mediaType": kind, "digest": _digest(layer), "size": len(layer)})
    manifest["config"].update(digest=_digest(config), size=len(config))
    written = json.dumps(manifest).encode()
    listed = {
        "mediaType": manifest["mediaType"],
        "digest": _digest(written),
        "size": len(written),
        "annotations": {"io.containerd.image.name": name},
    }
    archive = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [listed]}).encode(),
    }
    for blob in (layer, config, written):
        archive[f"blobs/sha256/{_digest(blob).partition(':')[2]}"] = blob
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        Path(file.name).write_bytes(_tar(archive))
        ctr("images", "import", file.name)


def _tar(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
