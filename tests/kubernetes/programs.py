"""The programs of a Kubernetes for tests: of which Go module each is built, and where it is found.

The programs are looked for, in this order, in the folder ``KUBEBUILDER_ASSETS``, in the cache that
``make kube-binaries`` fills, and, kubectl and helm, on the path.
"""

import hashlib
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

PINS = Path(__file__).with_name("binaries")
"""A folder for each Go module, with its go.mod and go.sum."""

ON_PATH = ("kubectl", "helm")
"""Clients: one of another version, as people have it, does as well."""

STAGES = "kwok-stages.yaml"
"""How fake nodes and pods come and go. A kwok that is built from its module has none built in."""

KUEUE_CRDS = "kueue-crds.yaml"
"""Kueue's own kinds."""

_KUBE_VERSION = "k8s.io/component-base/version"


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module and what is taken from it.

    Attributes:
        name: Its folder below ``binaries``.
        path: Its path as Go knows it.
        packages: Package by name of the program.
        linked: What the linker writes into variables; ``{version}``, ``{major}`` and ``{minor}``
            are those of the module.
        texts: Files of the module that are kept too, one after the other, by name.
    """

    name: str
    path: str
    packages: dict[str, str]
    linked: tuple[str, ...] = ()
    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where its go.mod is."""
        return PINS / self.name

    @property
    def version(self) -> str:
        """The version that its go.mod asks for, such as ``v1.37.2``."""
        text = (self.folder / "go.mod").read_text(encoding="utf-8")
        found = re.search(rf"^(?:require)?\s+{re.escape(self.path)} (v\S+)", text, re.MULTILINE)
        if not found:
            raise ValueError(f"{self.folder}/go.mod requires no {self.path}")
        return found[1]

    @property
    def flags(self) -> tuple[str, ...]:
        """What ``go build`` is called with."""
        major, minor, _ = self.version.removeprefix("v").split(".", 2)
        names = {"version": self.version, "major": major, "minor": minor}
        linked = "".join(f" -X {variable.format(**names)}" for variable in self.linked)
        return ("-trimpath", "-ldflags", f"-s -w{linked}")

    @property
    def key(self) -> str:
        """Names what would be built: the same sources and flags have the same key."""
        digest = hashlib.sha256()
        for name in ("go.mod", "go.sum"):
            digest.update((self.folder / name).read_bytes())
        digest.update(repr((self.flags, self.packages, self.texts)).encode())
        return f"{self.name}-{self.version}-{digest.hexdigest()[:12]}"


MODULES = (
    Module("etcd", "go.etcd.io/etcd/server/v3", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Module(
        "kubernetes",
        "k8s.io/kubernetes",
        {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kubectl",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
            )
        },
        # Without these all call themselves v0.0.0.
        linked=(
            f"{_KUBE_VERSION}.gitVersion={{version}}",
            f"{_KUBE_VERSION}.gitMajor={{major}}",
            f"{_KUBE_VERSION}.gitMinor={{minor}}",
        ),
    ),
    Module(
        "kwok",
        "sigs.k8s.io/kwok",
        {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
        texts={
            STAGES: tuple(
                f"kustomize/stage/{name}.yaml"
                for name in (
                    "node/fast/node-initialize",
                    "node/heartbeat-with-lease/node-heartbeat-with-lease",
                    "pod/fast/pod-ready",
                    "pod/fast/pod-complete",
                    "pod/fast/pod-delete",
                )
            )
        },
    ),
    Module(
        "helm",
        "helm.sh/helm/v4",
        {"helm": "helm.sh/helm/v4/cmd/helm"},
        linked=("helm.sh/helm/v4/internal/version.version={version}",),
    ),
    Module("coredns", "github.com/coredns/coredns", {"coredns": "github.com/coredns/coredns"}),
)

_KUEUE_KINDS = (
    *("admissionchecks", "clusterqueues", "cohorts", "localqueues", "multikueueclusters"),
    *("multikueueconfigs", "provisioningrequestconfigs", "resourceflavors", "topologies"),
    *("workloadpriorityclasses", "workloads"),
)

OPTIONAL = (
    Module(
        "kueue",
        "sigs.k8s.io/kueue",
        {"kueue": "sigs.k8s.io/kueue/cmd/kueue"},
        linked=("sigs.k8s.io/kueue/pkg/version.GitVersion={version}",),
        texts={
            KUEUE_CRDS: tuple(
                f"config/components/crd/bases/kueue.x-k8s.io_{kind}.yaml" for kind in _KUEUE_KINDS
            )
        },
    ),
)
"""What only some tests want, each built by a verb of its own."""

API_SERVER = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
"""Tier 1: a real API server with its controllers."""

KUEUE = ("kueue", KUEUE_CRDS)
"""Kueue, on top of tier 1."""

FAKE_NODES = ("kube-scheduler", "kwok", STAGES)
"""Tier 2, on top of it: a real scheduler, and nodes and pods that only seem to run."""

REAL_NODE = ("kube-scheduler", "kubelet", "kube-proxy", "coredns")
"""Tier 3, on top of tier 1: a node that runs containers."""

ONLY_FOR_A_REAL_NODE = frozenset(REAL_NODE) - frozenset(FAKE_NODES)
"""What is built when tier 3 is asked for, and not for every run of the tests."""


def cache() -> Path:
    """Where ``make kube-binaries`` puts what it builds."""
    of_user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(of_user) / "headrace" / "kube"


def find(name: str) -> Path | None:
    """The program or text of this name; None if it is nowhere."""
    given = os.environ.get("KUBEBUILDER_ASSETS")
    if given and (Path(given) / name).is_file():
        return Path(given) / name
    for module in (*MODULES, *OPTIONAL):
        if name in module.packages or name in module.texts:
            # The last part names the Go that built it: any will do.
            built = [path for path in cache().glob(f"{module.key}-*/{name}") if path.is_file()]
            if built:
                return max(built, key=lambda path: path.stat().st_mtime)
    on_path = shutil.which(name) if name in ON_PATH else None
    return Path(on_path) if on_path else None


def program(name: str) -> Path:
    """The program or text of this name.

    Raises:
        FileNotFoundError: If it is nowhere, with a sentence that says how to get it.
    """
    if found := find(name):
        return found
    raise FileNotFoundError(how_to_get([name]))


def missing(names: tuple[str, ...]) -> list[str]:
    """Those of the names that are nowhere."""
    return [name for name in names if find(name) is None]


def how_to_get(names: list[str]) -> str:
    """A sentence for people who lack these programs."""
    given = os.environ.get("KUBEBUILDER_ASSETS")
    if set(names) <= set(KUEUE):
        return f"no {', '.join(names)} in {cache()}: `make kueue` builds it with Go, and tests it"
    where = f"in KUBEBUILDER_ASSETS={given} or " if given else ""
    verb = "kube-binaries"
    if ONLY_FOR_A_REAL_NODE.intersection(names):
        verb += " TIER=3"
    return (
        f"no {', '.join(names)} {where}in {cache()}: `make {verb}` builds what is missing "
        "with Go (12 to 22 minutes the first time, seconds later)"
    )
