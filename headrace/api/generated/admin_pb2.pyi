import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from headrace.api.generated import common_pb2 as _common_pb2
from headrace.api.generated import nodes_pb2 as _nodes_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetClusterRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetClusterResponse(_message.Message):
    __slots__ = ("version", "term", "last_sequence", "state", "policy", "accelerators_total", "accelerators_held", "dashboard_url", "now")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_HELD_FIELD_NUMBER: _ClassVar[int]
    DASHBOARD_URL_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    version: str
    term: int
    last_sequence: int
    state: str
    policy: str
    accelerators_total: int
    accelerators_held: int
    dashboard_url: str
    now: _timestamp_pb2.Timestamp
    def __init__(self, version: _Optional[str] = ..., term: _Optional[int] = ..., last_sequence: _Optional[int] = ..., state: _Optional[str] = ..., policy: _Optional[str] = ..., accelerators_total: _Optional[int] = ..., accelerators_held: _Optional[int] = ..., dashboard_url: _Optional[str] = ..., now: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("node", "contact", "drained", "holders", "strays", "last_change_at", "closed", "closed_reason")
    class HoldersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NODE_FIELD_NUMBER: _ClassVar[int]
    CONTACT_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    STRAYS_FIELD_NUMBER: _ClassVar[int]
    LAST_CHANGE_AT_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_REASON_FIELD_NUMBER: _ClassVar[int]
    node: _nodes_pb2.Node
    contact: str
    drained: bool
    holders: _containers.ScalarMap[str, str]
    strays: _containers.RepeatedCompositeFieldContainer[_nodes_pb2.RunningUnit]
    last_change_at: _timestamp_pb2.Timestamp
    closed: str
    closed_reason: str
    def __init__(self, node: _Optional[_Union[_nodes_pb2.Node, _Mapping]] = ..., contact: _Optional[str] = ..., drained: _Optional[bool] = ..., holders: _Optional[_Mapping[str, str]] = ..., strays: _Optional[_Iterable[_Union[_nodes_pb2.RunningUnit, _Mapping]]] = ..., last_change_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., closed: _Optional[str] = ..., closed_reason: _Optional[str] = ...) -> None: ...

class ListNodesResponse(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    def __init__(self, nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ...) -> None: ...

class DrainNodeRequest(_message.Message):
    __slots__ = ("node", "drained")
    NODE_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    node: str
    drained: bool
    def __init__(self, node: _Optional[str] = ..., drained: _Optional[bool] = ...) -> None: ...

class DrainNodeResponse(_message.Message):
    __slots__ = ("note",)
    NOTE_FIELD_NUMBER: _ClassVar[int]
    note: str
    def __init__(self, note: _Optional[str] = ...) -> None: ...

class CloseNodesRequest(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[ClosedNode]
    def __init__(self, nodes: _Optional[_Iterable[_Union[ClosedNode, _Mapping]]] = ...) -> None: ...

class ClosedNode(_message.Message):
    __slots__ = ("node", "closed", "reason")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    node: str
    closed: str
    reason: str
    def __init__(self, node: _Optional[str] = ..., closed: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CloseNodesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RemoveNodeRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class RemoveNodeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PutQueueRequest(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: _common_pb2.Queue
    def __init__(self, queue: _Optional[_Union[_common_pb2.Queue, _Mapping]] = ...) -> None: ...

class PutQueueResponse(_message.Message):
    __slots__ = ("queue", "warnings")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    queue: _common_pb2.Queue
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, queue: _Optional[_Union[_common_pb2.Queue, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteQueueRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteQueueResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListQueuesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListQueuesResponse(_message.Message):
    __slots__ = ("queues",)
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedCompositeFieldContainer[_common_pb2.Queue]
    def __init__(self, queues: _Optional[_Iterable[_Union[_common_pb2.Queue, _Mapping]]] = ...) -> None: ...

class GetPolicyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetPolicyResponse(_message.Message):
    __slots__ = ("settings", "policies", "descriptions", "version")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    settings: _containers.ScalarMap[str, str]
    policies: _containers.RepeatedScalarFieldContainer[str]
    descriptions: _containers.RepeatedCompositeFieldContainer[SettingDescription]
    version: int
    def __init__(self, settings: _Optional[_Mapping[str, str]] = ..., policies: _Optional[_Iterable[str]] = ..., descriptions: _Optional[_Iterable[_Union[SettingDescription, _Mapping]]] = ..., version: _Optional[int] = ...) -> None: ...

class SettingDescription(_message.Message):
    __slots__ = ("name", "default_value", "lowest", "highest", "whole", "meaning")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VALUE_FIELD_NUMBER: _ClassVar[int]
    LOWEST_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    MEANING_FIELD_NUMBER: _ClassVar[int]
    name: str
    default_value: str
    lowest: float
    highest: float
    whole: bool
    meaning: str
    def __init__(self, name: _Optional[str] = ..., default_value: _Optional[str] = ..., lowest: _Optional[float] = ..., highest: _Optional[float] = ..., whole: _Optional[bool] = ..., meaning: _Optional[str] = ...) -> None: ...

class SetPolicyRequest(_message.Message):
    __slots__ = ("settings",)
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    settings: _containers.ScalarMap[str, str]
    def __init__(self, settings: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SetPolicyResponse(_message.Message):
    __slots__ = ("settings", "version")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    settings: _containers.ScalarMap[str, str]
    version: int
    def __init__(self, settings: _Optional[_Mapping[str, str]] = ..., version: _Optional[int] = ...) -> None: ...

class TryPolicyRequest(_message.Message):
    __slots__ = ("settings", "version")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    settings: _containers.ScalarMap[str, str]
    version: int
    def __init__(self, settings: _Optional[_Mapping[str, str]] = ..., version: _Optional[int] = ...) -> None: ...

class TryPolicyResponse(_message.Message):
    __slots__ = ("changes", "differences", "refused")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[SettingChange]
    differences: _containers.RepeatedCompositeFieldContainer[PolicyDifference]
    refused: str
    def __init__(self, changes: _Optional[_Iterable[_Union[SettingChange, _Mapping]]] = ..., differences: _Optional[_Iterable[_Union[PolicyDifference, _Mapping]]] = ..., refused: _Optional[str] = ...) -> None: ...

class SettingChange(_message.Message):
    __slots__ = ("name", "before", "after")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    name: str
    before: str
    after: str
    def __init__(self, name: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class PolicyDifference(_message.Message):
    __slots__ = ("uid", "namespace", "name", "kind", "before", "after")
    UID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    uid: str
    namespace: str
    name: str
    kind: str
    before: str
    after: str
    def __init__(self, uid: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., kind: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class ListPolicyVersionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PolicyVersion(_message.Message):
    __slots__ = ("version", "at", "who", "changes", "rolls_back_to")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    ROLLS_BACK_TO_FIELD_NUMBER: _ClassVar[int]
    version: int
    at: _timestamp_pb2.Timestamp
    who: str
    changes: _containers.RepeatedCompositeFieldContainer[SettingChange]
    rolls_back_to: int
    def __init__(self, version: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., who: _Optional[str] = ..., changes: _Optional[_Iterable[_Union[SettingChange, _Mapping]]] = ..., rolls_back_to: _Optional[int] = ...) -> None: ...

class ListPolicyVersionsResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[PolicyVersion]
    def __init__(self, versions: _Optional[_Iterable[_Union[PolicyVersion, _Mapping]]] = ...) -> None: ...

class RollBackPolicyRequest(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class RollBackPolicyResponse(_message.Message):
    __slots__ = ("version", "changes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    version: int
    changes: _containers.RepeatedCompositeFieldContainer[SettingChange]
    def __init__(self, version: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[SettingChange, _Mapping]]] = ...) -> None: ...

class ListObservationsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Observation(_message.Message):
    __slots__ = ("uid", "attempt", "step", "at", "measured", "who")
    UID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    uid: str
    attempt: int
    step: int
    at: _timestamp_pb2.Timestamp
    measured: _common_pb2.MeasuredPlan
    who: str
    def __init__(self, uid: _Optional[str] = ..., attempt: _Optional[int] = ..., step: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., measured: _Optional[_Union[_common_pb2.MeasuredPlan, _Mapping]] = ..., who: _Optional[str] = ...) -> None: ...

class ListObservationsResponse(_message.Message):
    __slots__ = ("observations",)
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    observations: _containers.RepeatedCompositeFieldContainer[Observation]
    def __init__(self, observations: _Optional[_Iterable[_Union[Observation, _Mapping]]] = ...) -> None: ...

class ImportMeasurementsRequest(_message.Message):
    __slots__ = ("rows", "dry_run")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[_common_pb2.MeasuredPlan]
    dry_run: bool
    def __init__(self, rows: _Optional[_Iterable[_Union[_common_pb2.MeasuredPlan, _Mapping]]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ImportMeasurementsResponse(_message.Message):
    __slots__ = ("taken", "known", "doubts")
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    DOUBTS_FIELD_NUMBER: _ClassVar[int]
    taken: int
    known: int
    doubts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, taken: _Optional[int] = ..., known: _Optional[int] = ..., doubts: _Optional[_Iterable[str]] = ...) -> None: ...

class ListFitsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Fit(_message.Message):
    __slots__ = ("model_type", "accelerator_type", "rows", "rows_since", "fitted_at", "sources", "error", "error_median", "error_highest", "error_since", "held", "coverage", "noise", "outliers", "parameters", "unusable", "compared")
    MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_TYPE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROWS_SINCE_FIELD_NUMBER: _ClassVar[int]
    FITTED_AT_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ERROR_MEDIAN_FIELD_NUMBER: _ClassVar[int]
    ERROR_HIGHEST_FIELD_NUMBER: _ClassVar[int]
    ERROR_SINCE_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    NOISE_FIELD_NUMBER: _ClassVar[int]
    OUTLIERS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    UNUSABLE_FIELD_NUMBER: _ClassVar[int]
    COMPARED_FIELD_NUMBER: _ClassVar[int]
    model_type: str
    accelerator_type: str
    rows: int
    rows_since: int
    fitted_at: _timestamp_pb2.Timestamp
    sources: _containers.RepeatedCompositeFieldContainer[FitSource]
    error: float
    error_median: float
    error_highest: float
    error_since: float
    held: float
    coverage: float
    noise: float
    outliers: _containers.RepeatedCompositeFieldContainer[FitOutlier]
    parameters: _containers.RepeatedCompositeFieldContainer[FitParameter]
    unusable: str
    compared: _containers.RepeatedCompositeFieldContainer[ComparedRow]
    def __init__(self, model_type: _Optional[str] = ..., accelerator_type: _Optional[str] = ..., rows: _Optional[int] = ..., rows_since: _Optional[int] = ..., fitted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sources: _Optional[_Iterable[_Union[FitSource, _Mapping]]] = ..., error: _Optional[float] = ..., error_median: _Optional[float] = ..., error_highest: _Optional[float] = ..., error_since: _Optional[float] = ..., held: _Optional[float] = ..., coverage: _Optional[float] = ..., noise: _Optional[float] = ..., outliers: _Optional[_Iterable[_Union[FitOutlier, _Mapping]]] = ..., parameters: _Optional[_Iterable[_Union[FitParameter, _Mapping]]] = ..., unusable: _Optional[str] = ..., compared: _Optional[_Iterable[_Union[ComparedRow, _Mapping]]] = ...) -> None: ...

class ComparedRow(_message.Message):
    __slots__ = ("uid", "who", "plan", "placement", "measured_seconds", "predicted_seconds", "lower_seconds", "upper_seconds", "guessed_seconds", "is_news")
    UID_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    MEASURED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LOWER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    UPPER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    GUESSED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    IS_NEWS_FIELD_NUMBER: _ClassVar[int]
    uid: str
    who: str
    plan: str
    placement: str
    measured_seconds: float
    predicted_seconds: float
    lower_seconds: float
    upper_seconds: float
    guessed_seconds: float
    is_news: bool
    def __init__(self, uid: _Optional[str] = ..., who: _Optional[str] = ..., plan: _Optional[str] = ..., placement: _Optional[str] = ..., measured_seconds: _Optional[float] = ..., predicted_seconds: _Optional[float] = ..., lower_seconds: _Optional[float] = ..., upper_seconds: _Optional[float] = ..., guessed_seconds: _Optional[float] = ..., is_news: _Optional[bool] = ...) -> None: ...

class FitSource(_message.Message):
    __slots__ = ("uid", "who", "rows", "last_at")
    UID_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LAST_AT_FIELD_NUMBER: _ClassVar[int]
    uid: str
    who: str
    rows: int
    last_at: _timestamp_pb2.Timestamp
    def __init__(self, uid: _Optional[str] = ..., who: _Optional[str] = ..., rows: _Optional[int] = ..., last_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class FitOutlier(_message.Message):
    __slots__ = ("plan", "placement", "measured_seconds", "predicted_seconds", "reason")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    MEASURED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    plan: str
    placement: str
    measured_seconds: float
    predicted_seconds: float
    reason: str
    def __init__(self, plan: _Optional[str] = ..., placement: _Optional[str] = ..., measured_seconds: _Optional[float] = ..., predicted_seconds: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class FitParameter(_message.Message):
    __slots__ = ("name", "value", "factor")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    factor: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., factor: _Optional[float] = ...) -> None: ...

class ListFitsResponse(_message.Message):
    __slots__ = ("fits",)
    FITS_FIELD_NUMBER: _ClassVar[int]
    fits: _containers.RepeatedCompositeFieldContainer[Fit]
    def __init__(self, fits: _Optional[_Iterable[_Union[Fit, _Mapping]]] = ...) -> None: ...

class ListForecastOutcomesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ForecastOutcome(_message.Message):
    __slots__ = ("uid", "job", "queue", "accelerator_type", "started", "end", "ended_at", "started_at", "stage")
    UID_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_TYPE_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    uid: str
    job: str
    queue: str
    accelerator_type: str
    started: bool
    end: _common_pb2.Estimate
    ended_at: float
    started_at: float
    stage: str
    def __init__(self, uid: _Optional[str] = ..., job: _Optional[str] = ..., queue: _Optional[str] = ..., accelerator_type: _Optional[str] = ..., started: _Optional[bool] = ..., end: _Optional[_Union[_common_pb2.Estimate, _Mapping]] = ..., ended_at: _Optional[float] = ..., started_at: _Optional[float] = ..., stage: _Optional[str] = ...) -> None: ...

class ListForecastOutcomesResponse(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[ForecastOutcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[ForecastOutcome, _Mapping]]] = ...) -> None: ...

class ListSwitchPricesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SwitchPrice(_message.Message):
    __slots__ = ("model", "accelerators_before", "accelerators_after", "kind", "count", "seconds_total", "median_seconds", "p90_seconds", "highest_seconds", "last_at")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_AFTER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    P90_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LAST_AT_FIELD_NUMBER: _ClassVar[int]
    model: str
    accelerators_before: int
    accelerators_after: int
    kind: str
    count: int
    seconds_total: float
    median_seconds: float
    p90_seconds: float
    highest_seconds: float
    last_at: _timestamp_pb2.Timestamp
    def __init__(self, model: _Optional[str] = ..., accelerators_before: _Optional[int] = ..., accelerators_after: _Optional[int] = ..., kind: _Optional[str] = ..., count: _Optional[int] = ..., seconds_total: _Optional[float] = ..., median_seconds: _Optional[float] = ..., p90_seconds: _Optional[float] = ..., highest_seconds: _Optional[float] = ..., last_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListSwitchPricesResponse(_message.Message):
    __slots__ = ("prices",)
    PRICES_FIELD_NUMBER: _ClassVar[int]
    prices: _containers.RepeatedCompositeFieldContainer[SwitchPrice]
    def __init__(self, prices: _Optional[_Iterable[_Union[SwitchPrice, _Mapping]]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("uid",)
    UID_FIELD_NUMBER: _ClassVar[int]
    uid: str
    def __init__(self, uid: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("stage", "reason", "holders", "decisions", "position", "retry_at", "does_not_fit", "more_that_do_not_fit", "because")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    RETRY_AT_FIELD_NUMBER: _ClassVar[int]
    DOES_NOT_FIT_FIELD_NUMBER: _ClassVar[int]
    MORE_THAT_DO_NOT_FIT_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    stage: str
    reason: _common_pb2.Reason
    holders: _containers.RepeatedCompositeFieldContainer[Holder]
    decisions: _containers.RepeatedCompositeFieldContainer[ExplainedDecision]
    position: int
    retry_at: _timestamp_pb2.Timestamp
    does_not_fit: _containers.RepeatedCompositeFieldContainer[PlanThatDoesNotFit]
    more_that_do_not_fit: int
    because: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, stage: _Optional[str] = ..., reason: _Optional[_Union[_common_pb2.Reason, _Mapping]] = ..., holders: _Optional[_Iterable[_Union[Holder, _Mapping]]] = ..., decisions: _Optional[_Iterable[_Union[ExplainedDecision, _Mapping]]] = ..., position: _Optional[int] = ..., retry_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., does_not_fit: _Optional[_Iterable[_Union[PlanThatDoesNotFit, _Mapping]]] = ..., more_that_do_not_fit: _Optional[int] = ..., because: _Optional[_Iterable[str]] = ...) -> None: ...

class PlanThatDoesNotFit(_message.Message):
    __slots__ = ("plan", "type", "missing_bytes", "message")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MISSING_BYTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    plan: str
    type: str
    missing_bytes: int
    message: str
    def __init__(self, plan: _Optional[str] = ..., type: _Optional[str] = ..., missing_bytes: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class Holder(_message.Message):
    __slots__ = ("uid", "namespace", "name", "accelerators")
    UID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_FIELD_NUMBER: _ClassVar[int]
    uid: str
    namespace: str
    name: str
    accelerators: int
    def __init__(self, uid: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., accelerators: _Optional[int] = ...) -> None: ...

class ExplainedDecision(_message.Message):
    __slots__ = ("sequence", "at", "reason", "action")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    at: _timestamp_pb2.Timestamp
    reason: _common_pb2.Reason
    action: str
    def __init__(self, sequence: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[_Union[_common_pb2.Reason, _Mapping]] = ..., action: _Optional[str] = ...) -> None: ...

class ExportSnapshotRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExportSnapshotResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BackupResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...
