"""The tests of this folder use what other folders import from it."""

from tests.kubernetes.fixtures import (
    api_server,
    custom_resources,
    fake_gpu_nodes,
    helm,
    kubeconfig_of,
    kubectl,
    namespace,
    scheduler,
    shared_cluster,
)

__all__ = [
    "api_server",
    "custom_resources",
    "fake_gpu_nodes",
    "helm",
    "kubeconfig_of",
    "kubectl",
    "namespace",
    "scheduler",
    "shared_cluster",
]
