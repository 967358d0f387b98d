"""The custom resource ``ClusterPolicy``."""

from headrace.api.manifest_policy import ONLY_NAME, ClusterPolicy
from operators.crds.definition import Column, Definition, ready_columns
from operators.crds.rule import Rule

CLUSTER_POLICY = Definition(
    kind="ClusterPolicy",
    plural="clusterpolicies",
    short_names=("hrpolicy", "hrpolicies"),
    namespaced=False,
    schema=ClusterPolicy.model_json_schema(by_alias=True),
    rules={
        "": (
            Rule(
                f"self.metadata.name == '{ONLY_NAME}'",
                f"a cluster has one policy, which is called {ONLY_NAME}",
            ),
        ),
    },
    elsewhere=(),
    columns=(
        Column("POLICY", ".spec.policy", "string", "Which policy decides."),
        Column("VERSION", ".status.version", "integer", "Version of the settings in force."),
        *ready_columns("Why not."),
    ),
)
