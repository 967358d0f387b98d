"""What a real node needs of the machine, beside the programs that we build."""

import os
import shutil
import subprocess
from pathlib import Path

NETWORK_PLUGINS = Path("/usr/lib/cni")

_PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "catatonit": "catatonit",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "hostname": "hostname",
}
"""The package of Debian by the program that is wanted."""

_OF_PLUGINS = "containernetworking-plugins"
_PLUGINS = ("bridge", "host-local", "loopback", "portmap")


def what_is_missing() -> str:
    """A sentence on what this machine lacks; empty if it lacks nothing."""
    if os.geteuid() != 0:
        return "a real node wants root, for namespaces, mounts and control groups; run it with sudo"
    packages = {package for name, package in _PACKAGES.items() if not shutil.which(name)}
    if any(not (NETWORK_PLUGINS / name).exists() for name in _PLUGINS):
        packages.add(_OF_PLUGINS)
    if not packages:
        return ""
    names = " ".join(sorted(packages))
    return (
        f"a real node wants packages of Debian that are not here: {names}; "
        f"`apt-get install --no-install-recommends {names}` installs them and starts nothing"
    )


def succeeds(command: list[str]) -> bool:
    """Whether a command ends without error; what it writes is thrown away."""
    ended = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    return ended.returncode == 0
