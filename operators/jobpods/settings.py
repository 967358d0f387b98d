"""How the pods of jobs are made: what an administrator decides, read once from a file."""

from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel


class PodSettings(BaseModel):
    """The file, written as Kubernetes writes things.

    Attributes:
        image: For jobs that name none.
        image_pull_policy: When kubelets pull; empty for their own default.
        image_pull_secrets: Names of Secrets of the job's namespace to pull with.
        uid: User and group of the pod: the agent's, which else could not look after it.
        shared_secrets: Secrets that every Ray worker has; naming one of these alone takes no pod.
        tolerations: Taints of the nodes that agents are on.
        runtime_class_name: Of nodes with GPUs; empty for the default.
        priority_class_name: Of the pods; empty for the default.
        resources: CPU and memory of the container. Accelerators are the Ray worker's.
        shared_memory: Size of /dev/shm.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, frozen=True, extra="forbid", populate_by_name=True
    )

    image: Annotated[str, Field(min_length=1)]
    image_pull_policy: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    uid: Annotated[int, Field(ge=1)]
    shared_secrets: tuple[str, ...] = ()
    tolerations: tuple[dict[str, Any], ...] = ()
    runtime_class_name: str = ""
    priority_class_name: str = ""
    resources: dict[str, Any] = Field(default_factory=dict)
    shared_memory: str = "16Gi"


def read_pod_settings(text: str) -> PodSettings:
    """The settings that a file has.

    Raises:
        ValueError: It is no such file; the text says what is wrong.
    """
    try:
        return PodSettings.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ValueError(f"wanted YAML: {error}") from error
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}"
            for each in error.errors(include_url=False)
        )
        raise ValueError(found) from error
