"""Builds the images of deploy/images without a registry: ``make e2e-images``; needs root.

buildah carries out the same Containerfiles as everybody. Only their bases are made here: Python is
a Debian of debootstrap with Debian's own, and uv is that of PyPI's wheel. uv is configured in the
build as it is here, and sees the same cache; nothing of either comes into an image.

What is built stays in a cache outside the tree, an archive for each image, by sources.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.source_tree import ROOT, repository_files
from tests.kubernetes.programs import cache
from tests.kubernetes.real_node import machine
from tests.kubernetes.real_node.node import PAUSE_IMAGE

IMAGES = ("control-plane", "operator", "agent")
REGISTRY = "localhost"
"""Host of the images' names: containerd asks no other for what it has."""

_CONTAINERFILES = ROOT / "deploy" / "images"
_PYTHON_IMAGE = "localhost/headrace-test/python:bookworm"
_UV_IMAGE = "localhost/headrace-test/uv:1"
_SUITE = "bookworm"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


class ImageError(Exception):
    """What stands in the way of an image, for people."""


def version() -> str:
    """The tag that the chart takes: its appVersion."""
    text = (ROOT / "deploy/helm/headrace/Chart.yaml").read_text(encoding="utf-8")
    return str(re.findall(r"^appVersion: \"?([^\"\n]+)", text, re.MULTILINE)[0])


def name_of(image: str) -> str:
    """Such as ``localhost/headrace/agent:0.1.0``."""
    return f"{REGISTRY}/headrace/{image}:{version()}"


def archives() -> list[Path]:
    """What a node imports.

    Raises:
        FileNotFoundError: If one is not built; says how to build it.
    """
    found = [_pause_archive(), *(_archive(image) for image in IMAGES)]
    lacking = [file.name for file in found if not file.is_file()]
    if lacking:
        raise FileNotFoundError(
            f"no {', '.join(lacking)} in {_folder()}: `make e2e-images` builds the images of these "
            "sources"
        )
    return found


def build_all() -> None:
    """Builds what is missing.

    Raises:
        ImageError: If something could not be built.
    """
    if lacking := machine.what_is_missing():
        raise ImageError(lacking)
    left = [image for image in IMAGES if not _archive(image).is_file()]
    if not _pause_archive().is_file():
        _build_pause()
    if left:
        _build_bases()
    for image in left:
        started = time.monotonic()
        print(f"{image}: building", flush=True)
        with _uv_as_here() as volumes:
            _buildah(
                *("build", "--isolation=chroot", "--format=docker", *volumes),
                f"--build-arg=PYTHON_IMAGE={_PYTHON_IMAGE}",
                f"--build-arg=UV_IMAGE={_UV_IMAGE}",
                f"--file={_CONTAINERFILES / image}.Containerfile",
                f"--tag={name_of(image)}",
                str(ROOT),
            )
        for old in _folder().glob(f"{image}-*.tar"):
            old.unlink()
        _export(name_of(image), _archive(image))
        # The archive is what counts; a second copy of gigabytes is of no use.
        _buildah("rmi", name_of(image))
        size = _archive(image).stat().st_size / 1e6
        print(f"{image}: {size:.0f} MB in {time.monotonic() - started:.0f} s", flush=True)


def _folder() -> Path:
    return cache().parent / "images"


def _pause_archive() -> Path:
    return _folder() / "pause.tar"


def _archive(image: str) -> Path:
    digest = hashlib.sha256()
    sources = ("headrace/", "controlplane/", "agent/", "operators/", "simulator/")
    for name in sorted(repository_files()):
        if name.startswith(sources) or name in (
            *("pyproject.toml", "uv.lock", "README.md", "LICENSE"),
            f"deploy/images/{image}.Containerfile",
        ):
            digest.update(f"{name}\n".encode())
            digest.update((ROOT / name).read_bytes())
    return _folder() / f"{image}-{version()}-{digest.hexdigest()[:12]}.tar"


def _build_pause() -> None:
    with tempfile.TemporaryDirectory() as context:
        reaper = shutil.which("catatonit")
        assert reaper
        shutil.copy(reaper, context)
        text = 'FROM scratch\nCOPY catatonit /catatonit\nENTRYPOINT ["/catatonit", "-P"]\n'
        _build_text(text, Path(context), PAUSE_IMAGE)
    _export(PAUSE_IMAGE, _pause_archive())


def _build_bases() -> None:
    if not _has(_UV_IMAGE):
        wanted = re.findall(
            r"^ARG UV_IMAGE=\S+:(\S+)$",
            (_CONTAINERFILES / "agent.Containerfile").read_text(encoding="utf-8"),
            re.MULTILINE,
        )[0]
        with tempfile.TemporaryDirectory() as context:
            uv = os.environ.get("UV", "uv")
            _run(uv, "pip", "install", "--quiet", f"--target={context}", f"uv=={wanted}")
            _build_text("FROM scratch\nCOPY bin/uv /uv\n", Path(context), _UV_IMAGE)
    if not _has(_PYTHON_IMAGE):
        print(f"{_PYTHON_IMAGE}: debootstrap", flush=True)
        with tempfile.TemporaryDirectory(dir=_folder()) as context:
            mirror = _mirror()
            _run(
                *("debootstrap", "--variant=minbase", "--include=python3,ca-certificates"),
                *(_SUITE, f"{context}/root", *mirror),
            )
            text = f"FROM scratch\nCOPY root /\nENV PATH={_PATH}\n"
            _build_text(text, Path(context), _PYTHON_IMAGE)


def _mirror() -> list[str]:
    """That of the machine, if it is one of the same Debian; else debootstrap knows one."""
    told = _said(
        *("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"),
        *(f"Codename: {_SUITE}", "Component: main", "Origin: Debian"),
    )
    return told.splitlines()[:1]


@contextlib.contextmanager
def _uv_as_here() -> Iterator[list[str]]:
    """Mounts that give uv in the build what it has here: settings, authorities, and its cache."""
    uv = os.environ.get("UV", "uv")
    home = Path("/root")  # in the build
    mounts = {_said(uv, "cache", "dir").strip(): str(home / ".cache" / "uv")}
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "uv.toml"
        given = [
            Path(os.environ.get("UV_CONFIG_FILE") or "/nonexistent"),
            Path.home() / ".config" / "uv" / "uv.toml",
            Path("/etc/uv/uv.toml"),
        ]
        text = next((file.read_text() for file in given if file.is_file()), "")
        settings.write_text(f"system-certs = true\n{text}")
        mounts[str(settings)] = "/etc/uv/uv.toml:ro"
        authorities = os.environ.get("SSL_CERT_FILE", _AUTHORITIES)
        if Path(authorities).is_file():
            mounts[authorities] = f"{_AUTHORITIES}:ro"
        yield [f"--volume={outside}:{inside}" for outside, inside in mounts.items()]


def _build_text(text: str, context: Path, name: str) -> None:
    file = context / "Containerfile"
    file.write_text(text)
    _buildah("build", "--format=docker", f"--file={file}", f"--tag={name}", str(context))


def _export(name: str, archive: Path) -> None:
    """Writes an archive, whole or not at all; layers are not compressed, which takes minutes."""
    half = archive.with_suffix(".half")
    half.unlink(missing_ok=True)
    _buildah("push", "--quiet", name, f"docker-archive:{half}:{name}")
    half.replace(archive)


def _has(name: str) -> bool:
    return machine.succeeds([*_buildah_words(), "inspect", "--type=image", name])


def _buildah(*words: str) -> None:
    _run(*_buildah_words(), *words)


def _buildah_words() -> list[str]:
    # In mounts of its own, so that none is left however it ends.
    folder = _folder()
    return [
        *("unshare", "--mount", "buildah", f"--root={folder / 'storage'}"),
        *(f"--runroot={folder / 'run'}", "--storage-driver=overlay"),
    ]


def _run(*command: str) -> None:
    _folder().mkdir(parents=True, exist_ok=True)
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True
    )
    if ended.returncode:
        last = "\n".join(ended.stdout.splitlines()[-30:])
        raise ImageError(f"`{' '.join(command)}` ended with {ended.returncode}:\n{last}")


def _said(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def main() -> int:
    """Builds; the exit status."""
    try:
        build_all()
    except ImageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
