"""A place of its own on this machine: its network, mounts and processes go with one kill.

Pid 1 in there only reaps. When it is killed the kernel ends every process of the place, containers
included, and then drops its mounts and network devices.
"""

import subprocess
from pathlib import Path

from tests.kubernetes.waiting import until

REAPER = ("catatonit", "-P")
"""What is pid 1, here and in the sandbox of each pod."""

NODE_ADDRESS = "10.123.0.2"
_GATEWAY = "10.123.0.1"

_PRIVATE = ("run", "var/lib", "var/log")
"""Where programs keep what they write, under the paths that they are built with."""

# A kubelet writes those that are otherwise, and they are the whole machine's.
_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
}


class Namespaces:
    """Network, mounts, host name, messages and processes; ``open`` makes them, ``close`` ends them.

    Attributes:
        pid: Of their pid 1, as the machine counts.
    """

    def __init__(self, folder: Path, host_name: str) -> None:
        self._folder = folder
        self._host_name = host_name
        self._starter: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def open(self) -> None:
        """Makes them.

        Raises:
            subprocess.CalledProcessError: If something may not be made; its output says why.
        """
        kinds = ("--net", "--mount", "--uts", "--ipc", "--pid")
        self._starter = subprocess.Popen(
            # They end with their starter, also when that one is killed.
            [
                *("setpriv", "--pdeathsig", "KILL", "unshare", *kinds, "--fork", "--kill-child"),
                *("--mount-proc", *REAPER),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.pid = until("the namespaces have their pid 1", self._find_reaper)
        self._furnish()
        self._connect()

    def within(self, *, only_network: bool = False) -> list[str]:
        """What to put before a command to run it in there.

        Args:
            only_network: Its files and process numbers stay the machine's, and it is a child of its
                starter.
        """
        if only_network:
            return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--"]
        kinds = ("--mount", "--uts", "--ipc", "--net", "--pid")
        return ["nsenter", f"--target={self.pid}", *kinds, "--"]

    def run(self, *command: str) -> str:
        """Runs a command in there; what it wrote.

        Raises:
            subprocess.CalledProcessError: If it ended with an error.
        """
        return subprocess.run(
            [*self.within(), *command], check=True, text=True, stdout=subprocess.PIPE
        ).stdout

    def close(self) -> None:
        """Ends them and everything in them; does not wait for those that others started."""
        if self._starter is not None:
            self._starter.kill()
            self._starter.wait()
            self._starter = None

    def _find_reaper(self) -> int:
        assert self._starter is not None
        if self._starter.poll() is not None:
            raise AssertionError(f"unshare ended with {self._starter.returncode}")
        pid = self._starter.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            # Until then it is still unshare, and mounts.
            found = [
                c for c in children if Path(f"/proc/{c}/comm").read_text().strip() == REAPER[0]
            ]
        except OSError:
            return 0
        return int(found[0]) if found else 0

    def _furnish(self) -> None:
        for name in _PRIVATE:
            own = self._folder / "private" / name
            own.mkdir(parents=True)
            self.run("mount", "--bind", str(own), f"/{name}")
        for name, value in _SYSCTLS.items():
            own = self._folder / "sysctl" / name
            own.parent.mkdir(parents=True, exist_ok=True)
            own.write_text(f"{value}\n")
            self.run("mount", "--bind", str(own), f"/proc/sys/{name}")
        # Volumes that a kubelet mounts have to reach the containers.
        self.run("mount", "--make-rshared", "/")
        self.run("mkdir", "-p", "/run/netns", "/run/lock")
        self.run("hostname", self._host_name)

    def _connect(self) -> None:
        """A network with nobody in it: kubelets want an address and a default route."""
        for words in (
            "link set lo up",
            "netns add gateway",
            "link add eth0 type veth peer name eth0 netns gateway",
            f"-n gateway addr add {_GATEWAY}/24 dev eth0",
            "-n gateway link set eth0 up",
            "-n gateway link set lo up",
            f"addr add {NODE_ADDRESS}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {_GATEWAY}",
        ):
            self.run("ip", *words.split())
