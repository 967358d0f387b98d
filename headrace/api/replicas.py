"""How the one control plane that decides is found among several.

An address ``dns:///NAME:PORT`` names them all. A client connects to each and asks for its health
(grpc.health.v1), which only the one that decides answers with SERVING: calls go there. When
another one takes over, they go to that one as soon as it says so.
"""

import json

BY_NAME = "dns:///"

_BALANCING: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}


def who_decides(address: str) -> tuple[tuple[str, str], ...]:
    """Options of a channel to ``address``: with several behind it, to the one that is serving.

    A channel to one address does without: there, who stands by says so in words.
    """
    health = {"healthCheckConfig": {"serviceName": ""}} if address.startswith(BY_NAME) else {}
    return (("grpc.service_config", json.dumps(_BALANCING | health)),)
