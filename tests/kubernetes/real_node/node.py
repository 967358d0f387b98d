"""A Kubernetes with a real node: kubelet, containerd, kube-proxy and DNS; needs root.

Everything of it is in a place of its own (``namespaces.py``), so nothing is installed, nothing of
the machine's own is changed, and all of it ends with one kill. Only the API server is reached from
outside, at the same address as inside. Tests put it on by ``real_node()``; by hand:
``python -m tests.kubernetes.real_node.node``.
"""

import contextlib
import json
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from kubernetes import client

from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.control_plane import ControlPlane, NotStartedError
from tests.kubernetes.programs import API_SERVER, REAL_NODE, how_to_get, missing, program
from tests.kubernetes.real_node import machine
from tests.kubernetes.real_node.cgroups import ControlGroup
from tests.kubernetes.real_node.namespaces import NODE_ADDRESS, Namespaces
from tests.kubernetes.waiting import until

NODE = "headrace-node"
PAUSE_IMAGE = "localhost/headrace-test/pause:1"

_SERVICE_ADDRESS = "10.96.0.1"
_DNS_ADDRESS = "10.96.0.10"
_DNS_PORT = 10053
_PODS = "10.244.7.0/24"
_TREE = Path(__file__).parents[3]

# Containers of a node, not the node's own programs, are what may write where root may.
_CONTAINERD = """
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE nobody may lower it.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
"""

_DNS = """
.:{port} {{
  bind {address}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig}
    pods verified
  }}
}}
"""


class RealNode(ControlPlane):
    """An API server and one node that runs containers; ``start`` or ``real_node`` makes it run."""

    _hosts = (
        *("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1"),
        *(NODE_ADDRESS, _SERVICE_ADDRESS),
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._namespaces = Namespaces(folder, NODE)
        self._group = ControlGroup()

    def start(self) -> None:
        """Starts everything, and waits until the node is ready.

        Raises:
            NotStartedError: If a program ended instead.
        """
        self._group.make()
        self._namespaces.open()
        self._start_containerd()
        # Its port is the same inside and outside, so one kubeconfig does for both.
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = int(listening.getsockname()[1])
            self._start_forwarder(listening.fileno(), port)
        self._start_api_server_on(etcd=2379, secure=port)
        self._start_controllers()
        self._start_scheduler()
        self._start_kubelet()
        self._start_proxy()
        self._start_dns()
        until("the node is ready", self._is_ready)

    def import_image(self, archive: Path) -> None:
        """Gives the node an image, from a tar that docker or an OCI tool has written."""
        self._namespaces.run("ctr", "--namespace=k8s.io", "image", "import", str(archive))

    def tag_image(self, name: str, other: str) -> None:
        """Gives an image of the node another name too."""
        self._namespaces.run("ctr", "--namespace=k8s.io", "image", "tag", name, other)

    def within(self) -> list[str]:
        """What to put before a command to run it as root of the node."""
        return self._namespaces.within()

    def stop(self) -> None:
        """Ends every program, and waits until nothing is left of them."""
        self._namespaces.close()
        super().stop()
        self._group.remove()

    def _start_containerd(self) -> None:
        network = self._folder / "cni" / "10-node.conflist"
        network.parent.mkdir()
        network.write_text(json.dumps(_pod_network()))
        configuration = self._folder / "containerd.toml"
        configuration.write_text(
            _CONTAINERD.format(
                pause=PAUSE_IMAGE, plugins=machine.NETWORK_PLUGINS, folder=self._folder
            )
        )
        self._run_within("containerd", ["containerd", f"--config={configuration}"])

        def answers() -> bool:
            self.check()
            command = [*self._namespaces.within(), "ctr", "version"]
            return machine.succeeds(command)

        until("containerd answers", answers)

    def _start_forwarder(self, listening: int, port: int) -> None:
        module = "tests.kubernetes.real_node.forward"
        self._run_command(
            "forwarder",
            [
                *self._namespaces.within(only_network=True),
                *(sys.executable, "-m", module, str(listening), str(port)),
            ],
            folder=_TREE,
            inherited=(listening,),
        )

    def _addresses(self) -> list[str]:
        user = "kube-apiserver-kubelet-client"
        certificate, key = self._authority.client(user, ("system:masters",))
        return [
            "--bind-address=0.0.0.0",
            f"--advertise-address={NODE_ADDRESS}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={self._authority.certificate_file}",
            f"--kubelet-client-certificate={certificate}",
            f"--kubelet-client-key={key}",
        ]

    def _run(self, name: str, *options: str) -> None:
        """What only listens and writes nowhere but into our folder needs the node's network."""
        command = [*self._namespaces.within(only_network=True), str(program(name)), *options]
        self._run_command(name, command)

    def _run_within(self, name: str, command: list[str]) -> None:
        self._run_command(name, [*self._namespaces.within(), *command])

    def _start_kubelet(self) -> None:
        authority = self._authority
        certificate, key = authority.server("kubelet", (NODE, NODE_ADDRESS, "127.0.0.1"))
        settings = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._group.name}",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(authority.certificate_file)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(certificate),
            "tlsPrivateKeyFile": str(key),
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "clusterDNS": [_DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            # The machine's own name servers are not reached from the node's network.
            "resolvConf": "/dev/null",
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
            },
            # No registry could give an image again that was removed.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        }
        self._run_within(
            "kubelet",
            [
                str(program("kubelet")),
                f"--config={self._settings('kubelet', settings)}",
                f"--kubeconfig={self._kubeconfig(f'system:node:{NODE}', 'system:nodes')}",
                f"--node-ip={NODE_ADDRESS}",
                f"--hostname-override={NODE}",
            ],
        )

    def _start_proxy(self) -> None:
        settings = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(self._kubeconfig("system:kube-proxy"))},
            "hostnameOverride": NODE,
            "mode": "iptables",
            "clusterCIDR": _PODS,
            "oomScoreAdj": 0,
            # So that it writes no sysctl of the whole machine.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }
        self._run_within(
            "kube-proxy",
            [str(program("kube-proxy")), f"--config={self._settings('kube-proxy', settings)}"],
        )

    def _start_dns(self) -> None:
        """A process of the node in the place of pods, behind a Service that selects none."""
        corefile = self._folder / "Corefile"
        kubeconfig = self._kubeconfig("coredns", "system:masters")
        corefile.write_text(
            _DNS.format(port=_DNS_PORT, address=NODE_ADDRESS, kubeconfig=kubeconfig)
        )
        self._run("coredns", "-conf", str(corefile))
        api_server = self.api_server
        objects = "\n---\n".join(yaml.safe_dump(each) for each in _dns_objects())
        api_server.kubectl("apply", "-f", "-", stdin=objects)

    def _settings(self, name: str, settings: dict[str, object]) -> Path:
        file = self._folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return file

    def _is_ready(self) -> bool:
        self.check()
        api_server = self.api_server
        try:
            nodes = client.CoreV1Api(api_server.client).list_node().items
        finally:
            api_server.close()
        return any(
            condition.type == "Ready" and condition.status == "True"
            for node in nodes
            for condition in (node.status and node.status.conditions) or ()
        )


def _pod_network() -> dict[str, object]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": _PODS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "node", "plugins": [bridge, ports]}


def _dns_objects() -> list[dict[str, Any]]:
    protocols = {"dns": "UDP", "dns-tcp": "TCP"}
    service: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {
            "clusterIP": _DNS_ADDRESS,
            "ports": [
                {"name": name, "port": 53, "targetPort": _DNS_PORT, "protocol": protocol}
                for name, protocol in protocols.items()
            ],
        },
    }
    endpoints: dict[str, Any] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns-node",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "ports": [
            {"name": name, "port": _DNS_PORT, "protocol": protocol}
            for name, protocol in protocols.items()
        ],
        "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
    }
    return [service, endpoints]


def what_is_missing() -> str:
    """A sentence on what this machine lacks; empty if a node can be started."""
    if lacking := machine.what_is_missing():
        return lacking
    lacking_programs = missing((*API_SERVER, *REAL_NODE))
    return how_to_get(lacking_programs) if lacking_programs else ""


@contextlib.contextmanager
def real_node(images: list[Path]) -> Iterator[tuple[RealNode, ApiServer]]:
    """A cluster with a node that has these images, for the time of a ``with`` block.

    Raises:
        FileNotFoundError: If something is missing; says how to get it.
        NotStartedError: If a program ended.
    """
    if lacking := what_is_missing():
        raise FileNotFoundError(lacking)
    # Paths of sockets are short, so not below pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="headrace-node-"))
    node = RealNode(folder)
    try:
        node.start()
        for image in images:
            node.import_image(image)
        yield node, node.api_server
    finally:
        node.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _on_signal(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Keeps a node with all images until it is interrupted; the exit status."""
    from tests.kubernetes.real_node.build_images import archives

    signal.signal(signal.SIGTERM, _on_signal)
    try:
        with real_node(archives()) as (node, api_server):
            print(f"export KUBECONFIG={api_server.kubeconfig}")
            print(f"as root of the node: {' '.join(node.within())}", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        return 0
    except (FileNotFoundError, NotStartedError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
