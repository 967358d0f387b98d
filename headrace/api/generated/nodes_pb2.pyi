from headrace.api.generated import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Accelerator(_message.Message):
    __slots__ = ("id", "type", "memory_bytes", "cpu_cores", "host_memory_bytes", "unhealthy", "island")
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_CORES_FIELD_NUMBER: _ClassVar[int]
    HOST_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNHEALTHY_FIELD_NUMBER: _ClassVar[int]
    ISLAND_FIELD_NUMBER: _ClassVar[int]
    id: str
    type: str
    memory_bytes: int
    cpu_cores: _containers.RepeatedScalarFieldContainer[int]
    host_memory_bytes: int
    unhealthy: str
    island: str
    def __init__(self, id: _Optional[str] = ..., type: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., cpu_cores: _Optional[_Iterable[int]] = ..., host_memory_bytes: _Optional[int] = ..., unhealthy: _Optional[str] = ..., island: _Optional[str] = ...) -> None: ...

class Taint(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("name", "accelerators", "labels", "taints", "address", "agent_version")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TAINTS_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    accelerators: _containers.RepeatedCompositeFieldContainer[Accelerator]
    labels: _containers.ScalarMap[str, str]
    taints: _containers.RepeatedCompositeFieldContainer[Taint]
    address: str
    agent_version: str
    def __init__(self, name: _Optional[str] = ..., accelerators: _Optional[_Iterable[_Union[Accelerator, _Mapping]]] = ..., labels: _Optional[_Mapping[str, str]] = ..., taints: _Optional[_Iterable[_Union[Taint, _Mapping]]] = ..., address: _Optional[str] = ..., agent_version: _Optional[str] = ...) -> None: ...

class RunningUnit(_message.Message):
    __slots__ = ("uid", "attempt", "unit", "accelerators")
    UID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_FIELD_NUMBER: _ClassVar[int]
    uid: str
    attempt: int
    unit: int
    accelerators: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, uid: _Optional[str] = ..., attempt: _Optional[int] = ..., unit: _Optional[int] = ..., accelerators: _Optional[_Iterable[str]] = ...) -> None: ...

class SeenAttempt(_message.Message):
    __slots__ = ("uid", "attempt")
    UID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    uid: str
    attempt: int
    def __init__(self, uid: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class RegisterNodeRequest(_message.Message):
    __slots__ = ("node", "running", "highest_attempts", "highest_term", "agent_id")
    NODE_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_TERM_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    node: Node
    running: _containers.RepeatedCompositeFieldContainer[RunningUnit]
    highest_attempts: _containers.RepeatedCompositeFieldContainer[SeenAttempt]
    highest_term: int
    agent_id: str
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., running: _Optional[_Iterable[_Union[RunningUnit, _Mapping]]] = ..., highest_attempts: _Optional[_Iterable[_Union[SeenAttempt, _Mapping]]] = ..., highest_term: _Optional[int] = ..., agent_id: _Optional[str] = ...) -> None: ...

class RegisterNodeResponse(_message.Message):
    __slots__ = ("term", "heartbeat_seconds")
    TERM_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    term: int
    heartbeat_seconds: float
    def __init__(self, term: _Optional[int] = ..., heartbeat_seconds: _Optional[float] = ...) -> None: ...

class WatchAssignmentsRequest(_message.Message):
    __slots__ = ("node", "agent_id")
    NODE_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    node: str
    agent_id: str
    def __init__(self, node: _Optional[str] = ..., agent_id: _Optional[str] = ...) -> None: ...

class WatchAssignmentsResponse(_message.Message):
    __slots__ = ("term", "number", "launches")
    TERM_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LAUNCHES_FIELD_NUMBER: _ClassVar[int]
    term: int
    number: int
    launches: _containers.RepeatedCompositeFieldContainer[Launch]
    def __init__(self, term: _Optional[int] = ..., number: _Optional[int] = ..., launches: _Optional[_Iterable[_Union[Launch, _Mapping]]] = ...) -> None: ...

class Launch(_message.Message):
    __slots__ = ("uid", "attempt", "intent", "job_name", "namespace", "manifest_json", "plan", "units", "ranks_total", "units_total", "rendezvous", "generation", "purge", "own_pod")
    class Intent(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        INTENT_UNSPECIFIED: _ClassVar[Launch.Intent]
        INTENT_RUN: _ClassVar[Launch.Intent]
        INTENT_STOP: _ClassVar[Launch.Intent]
        INTENT_END: _ClassVar[Launch.Intent]
    INTENT_UNSPECIFIED: Launch.Intent
    INTENT_RUN: Launch.Intent
    INTENT_STOP: Launch.Intent
    INTENT_END: Launch.Intent
    UID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    INTENT_FIELD_NUMBER: _ClassVar[int]
    JOB_NAME_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_JSON_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    RANKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    UNITS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    RENDEZVOUS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PURGE_FIELD_NUMBER: _ClassVar[int]
    OWN_POD_FIELD_NUMBER: _ClassVar[int]
    uid: str
    attempt: int
    intent: Launch.Intent
    job_name: str
    namespace: str
    manifest_json: str
    plan: str
    units: _containers.RepeatedCompositeFieldContainer[_common_pb2.LaunchUnit]
    ranks_total: int
    units_total: int
    rendezvous: str
    generation: int
    purge: bool
    own_pod: bool
    def __init__(self, uid: _Optional[str] = ..., attempt: _Optional[int] = ..., intent: _Optional[_Union[Launch.Intent, str]] = ..., job_name: _Optional[str] = ..., namespace: _Optional[str] = ..., manifest_json: _Optional[str] = ..., plan: _Optional[str] = ..., units: _Optional[_Iterable[_Union[_common_pb2.LaunchUnit, _Mapping]]] = ..., ranks_total: _Optional[int] = ..., units_total: _Optional[int] = ..., rendezvous: _Optional[str] = ..., generation: _Optional[int] = ..., purge: _Optional[bool] = ..., own_pod: _Optional[bool] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("node", "applied_term", "applied_number", "started", "rendezvous", "progress", "exited", "health", "agent_id", "plans", "missed", "observed")
    NODE_FIELD_NUMBER: _ClassVar[int]
    APPLIED_TERM_FIELD_NUMBER: _ClassVar[int]
    APPLIED_NUMBER_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    RENDEZVOUS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    EXITED_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    PLANS_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    node: str
    applied_term: int
    applied_number: int
    started: _containers.RepeatedCompositeFieldContainer[UnitStarted]
    rendezvous: _containers.RepeatedCompositeFieldContainer[RendezvousBound]
    progress: _containers.RepeatedCompositeFieldContainer[ProgressReport]
    exited: _containers.RepeatedCompositeFieldContainer[UnitExited]
    health: _containers.RepeatedCompositeFieldContainer[AcceleratorHealth]
    agent_id: str
    plans: _containers.RepeatedCompositeFieldContainer[PlanReport]
    missed: _containers.RepeatedCompositeFieldContainer[CheckpointMissed]
    observed: _containers.RepeatedCompositeFieldContainer[PlanObserved]
    def __init__(self, node: _Optional[str] = ..., applied_term: _Optional[int] = ..., applied_number: _Optional[int] = ..., started: _Optional[_Iterable[_Union[UnitStarted, _Mapping]]] = ..., rendezvous: _Optional[_Iterable[_Union[RendezvousBound, _Mapping]]] = ..., progress: _Optional[_Iterable[_Union[ProgressReport, _Mapping]]] = ..., exited: _Optional[_Iterable[_Union[UnitExited, _Mapping]]] = ..., health: _Optional[_Iterable[_Union[AcceleratorHealth, _Mapping]]] = ..., agent_id: _Optional[str] = ..., plans: _Optional[_Iterable[_Union[PlanReport, _Mapping]]] = ..., missed: _Optional[_Iterable[_Union[CheckpointMissed, _Mapping]]] = ..., observed: _Optional[_Iterable[_Union[PlanObserved, _Mapping]]] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("register_again",)
    REGISTER_AGAIN_FIELD_NUMBER: _ClassVar[int]
    register_again: bool
    def __init__(self, register_again: _Optional[bool] = ...) -> None: ...

class UnitStarted(_message.Message):
    __slots__ = ("uid", "attempt", "unit")
    UID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    uid: str
    attempt: int
    unit: int
    def __init__(self, uid: _Optional[str] = ..., attempt: _Optional[int] = ..., unit: _Optional[int] = ...) -> None: ...

class RendezvousBound(_message.Message):
    __slots__ = ("uid", "attempt", "address")
    UID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    uid: str
    attempt: int
    address: str
    def __init__(self, uid: _Optional[str] = ..., attempt: _Optional[int] = ..., address: _Optional[str] = ...) -> None: ...

class StepLoss(_message.Message):
    __slots__ = ("step", "loss")
    STEP_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    step: int
    loss: float
    def __init__(self, step: _Optional[int] = ..., loss: _Optional[float] = ...) -> None: ...

class ProgressReport(_message.Message):
    __slots__ = ("uid", "attempt", "progress", "losses")
    UID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    uid: str
    attempt: int
    progress: _common_pb2.Progress
    losses: _containers.RepeatedCompositeFieldContainer[StepLoss]
    def __init__(self, uid: _Optional[str] = ..., attempt: _Optional[int] = ..., progress: _Optional[_Union[_common_pb2.Progress, _Mapping]] = ..., losses: _Optional[_Iterable[_Union[StepLoss, _Mapping]]] = ...) -> None: ...

class PlanReport(_message.Message):
    __slots__ = ("uid", "attempt", "before", "after", "step", "stood_still_seconds", "phases", "refused")
    UID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STOOD_STILL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    uid: str
    attempt: int
    before: str
    after: str
    step: int
    stood_still_seconds: float
    phases: _containers.RepeatedCompositeFieldContainer[_common_pb2.Phase]
    refused: str
    def __init__(self, uid: _Optional[str] = ..., attempt: _Optional[int] = ..., before: _Optional[str] = ..., after: _Optional[str] = ..., step: _Optional[int] = ..., stood_still_seconds: _Optional[float] = ..., phases: _Optional[_Iterable[_Union[_common_pb2.Phase, _Mapping]]] = ..., refused: _Optional[str] = ...) -> None: ...

class CheckpointMissed(_message.Message):
    __slots__ = ("uid", "attempt", "step", "reason")
    UID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    uid: str
    attempt: int
    step: int
    reason: _common_pb2.Reason
    def __init__(self, uid: _Optional[str] = ..., attempt: _Optional[int] = ..., step: _Optional[int] = ..., reason: _Optional[_Union[_common_pb2.Reason, _Mapping]] = ...) -> None: ...

class PlanObserved(_message.Message):
    __slots__ = ("uid", "attempt", "step", "measured")
    UID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    uid: str
    attempt: int
    step: int
    measured: _common_pb2.MeasuredPlan
    def __init__(self, uid: _Optional[str] = ..., attempt: _Optional[int] = ..., step: _Optional[int] = ..., measured: _Optional[_Union[_common_pb2.MeasuredPlan, _Mapping]] = ...) -> None: ...

class UnitExited(_message.Message):
    __slots__ = ("uid", "attempt", "unit", "outcome", "step", "reason")
    UID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    uid: str
    attempt: int
    unit: int
    outcome: str
    step: int
    reason: _common_pb2.Reason
    def __init__(self, uid: _Optional[str] = ..., attempt: _Optional[int] = ..., unit: _Optional[int] = ..., outcome: _Optional[str] = ..., step: _Optional[int] = ..., reason: _Optional[_Union[_common_pb2.Reason, _Mapping]] = ...) -> None: ...

class AcceleratorHealth(_message.Message):
    __slots__ = ("accelerator", "problem")
    ACCELERATOR_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    accelerator: str
    problem: str
    def __init__(self, accelerator: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class ServeLogsRequest(_message.Message):
    __slots__ = ("node", "request_id", "data", "done", "note", "attempt")
    NODE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    node: str
    request_id: str
    data: bytes
    done: bool
    note: str
    attempt: int
    def __init__(self, node: _Optional[str] = ..., request_id: _Optional[str] = ..., data: _Optional[bytes] = ..., done: _Optional[bool] = ..., note: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class ServeLogsResponse(_message.Message):
    __slots__ = ("request_id", "uid", "attempt", "unit", "tail_lines", "follow", "cancel")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    uid: str
    attempt: int
    unit: int
    tail_lines: int
    follow: bool
    cancel: bool
    def __init__(self, request_id: _Optional[str] = ..., uid: _Optional[str] = ..., attempt: _Optional[int] = ..., unit: _Optional[int] = ..., tail_lines: _Optional[int] = ..., follow: _Optional[bool] = ..., cancel: _Optional[bool] = ...) -> None: ...
