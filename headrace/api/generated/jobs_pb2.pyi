import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from headrace.api.generated import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubmitJobRequest(_message.Message):
    __slots__ = ("manifest_json", "uid", "generation", "dry_run", "own_pod")
    MANIFEST_JSON_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    OWN_POD_FIELD_NUMBER: _ClassVar[int]
    manifest_json: str
    uid: str
    generation: int
    dry_run: bool
    own_pod: bool
    def __init__(self, manifest_json: _Optional[str] = ..., uid: _Optional[str] = ..., generation: _Optional[int] = ..., dry_run: _Optional[bool] = ..., own_pod: _Optional[bool] = ...) -> None: ...

class SubmitJobResponse(_message.Message):
    __slots__ = ("uid", "generation", "result")
    UID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    uid: str
    generation: int
    result: str
    def __init__(self, uid: _Optional[str] = ..., generation: _Optional[int] = ..., result: _Optional[str] = ...) -> None: ...

class WithdrawJobRequest(_message.Message):
    __slots__ = ("uid", "purge")
    UID_FIELD_NUMBER: _ClassVar[int]
    PURGE_FIELD_NUMBER: _ClassVar[int]
    uid: str
    purge: bool
    def __init__(self, uid: _Optional[str] = ..., purge: _Optional[bool] = ...) -> None: ...

class WithdrawJobResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class JobSelector(_message.Message):
    __slots__ = ("namespace", "name", "uid", "queue")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    uid: str
    queue: str
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ..., queue: _Optional[str] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("selector",)
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    selector: JobSelector
    def __init__(self, selector: _Optional[_Union[JobSelector, _Mapping]] = ...) -> None: ...

class GetJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("selector", "page_size", "page_token")
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    selector: JobSelector
    page_size: int
    page_token: str
    def __init__(self, selector: _Optional[_Union[JobSelector, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs", "next_page_token", "version")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    next_page_token: str
    version: int
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class WatchJobsRequest(_message.Message):
    __slots__ = ("selector", "after_version")
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    AFTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    selector: JobSelector
    after_version: int
    def __init__(self, selector: _Optional[_Union[JobSelector, _Mapping]] = ..., after_version: _Optional[int] = ...) -> None: ...

class WatchJobsResponse(_message.Message):
    __slots__ = ("kind", "job", "version")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[WatchJobsResponse.Kind]
        KIND_PRESENT: _ClassVar[WatchJobsResponse.Kind]
        KIND_GONE: _ClassVar[WatchJobsResponse.Kind]
        KIND_SYNCED: _ClassVar[WatchJobsResponse.Kind]
    KIND_UNSPECIFIED: WatchJobsResponse.Kind
    KIND_PRESENT: WatchJobsResponse.Kind
    KIND_GONE: WatchJobsResponse.Kind
    KIND_SYNCED: WatchJobsResponse.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    kind: WatchJobsResponse.Kind
    job: Job
    version: int
    def __init__(self, kind: _Optional[_Union[WatchJobsResponse.Kind, str]] = ..., job: _Optional[_Union[Job, _Mapping]] = ..., version: _Optional[int] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("uid", "namespace", "name", "generation", "owner", "manifest_json", "status", "submitted_at", "submitter", "queue", "priority", "attempt_in_pods")
    UID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_JSON_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    SUBMITTER_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_IN_PODS_FIELD_NUMBER: _ClassVar[int]
    uid: str
    namespace: str
    name: str
    generation: int
    owner: str
    manifest_json: str
    status: JobStatus
    submitted_at: _timestamp_pb2.Timestamp
    submitter: str
    queue: str
    priority: int
    attempt_in_pods: int
    def __init__(self, uid: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., generation: _Optional[int] = ..., owner: _Optional[str] = ..., manifest_json: _Optional[str] = ..., status: _Optional[_Union[JobStatus, _Mapping]] = ..., submitted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., submitter: _Optional[str] = ..., queue: _Optional[str] = ..., priority: _Optional[int] = ..., attempt_in_pods: _Optional[int] = ...) -> None: ...

class JobStatus(_message.Message):
    __slots__ = ("stage", "reason", "conditions", "attempt", "plan", "units", "progress", "failures", "reconfigurations", "first_started_at", "finished_at", "end", "withdrawn", "observed_generation", "held_accelerator_seconds", "switches", "plan_asked_for", "out_of_memory", "suspected_nodes", "preempted", "start")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    RECONFIGURATIONS_FIELD_NUMBER: _ClassVar[int]
    FIRST_STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    HELD_ACCELERATOR_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SWITCHES_FIELD_NUMBER: _ClassVar[int]
    PLAN_ASKED_FOR_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_MEMORY_FIELD_NUMBER: _ClassVar[int]
    SUSPECTED_NODES_FIELD_NUMBER: _ClassVar[int]
    PREEMPTED_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    stage: str
    reason: _common_pb2.Reason
    conditions: _containers.RepeatedCompositeFieldContainer[_common_pb2.Condition]
    attempt: int
    plan: str
    units: _containers.RepeatedCompositeFieldContainer[_common_pb2.LaunchUnit]
    progress: _common_pb2.Progress
    failures: int
    reconfigurations: int
    first_started_at: _timestamp_pb2.Timestamp
    finished_at: _timestamp_pb2.Timestamp
    end: _common_pb2.Estimate
    withdrawn: bool
    observed_generation: int
    held_accelerator_seconds: float
    switches: _containers.RepeatedCompositeFieldContainer[Switch]
    plan_asked_for: str
    out_of_memory: _containers.RepeatedCompositeFieldContainer[OutOfMemory]
    suspected_nodes: _containers.RepeatedCompositeFieldContainer[SuspectedNode]
    preempted: _common_pb2.Reason
    start: _common_pb2.Estimate
    def __init__(self, stage: _Optional[str] = ..., reason: _Optional[_Union[_common_pb2.Reason, _Mapping]] = ..., conditions: _Optional[_Iterable[_Union[_common_pb2.Condition, _Mapping]]] = ..., attempt: _Optional[int] = ..., plan: _Optional[str] = ..., units: _Optional[_Iterable[_Union[_common_pb2.LaunchUnit, _Mapping]]] = ..., progress: _Optional[_Union[_common_pb2.Progress, _Mapping]] = ..., failures: _Optional[int] = ..., reconfigurations: _Optional[int] = ..., first_started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finished_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end: _Optional[_Union[_common_pb2.Estimate, _Mapping]] = ..., withdrawn: _Optional[bool] = ..., observed_generation: _Optional[int] = ..., held_accelerator_seconds: _Optional[float] = ..., switches: _Optional[_Iterable[_Union[Switch, _Mapping]]] = ..., plan_asked_for: _Optional[str] = ..., out_of_memory: _Optional[_Iterable[_Union[OutOfMemory, _Mapping]]] = ..., suspected_nodes: _Optional[_Iterable[_Union[SuspectedNode, _Mapping]]] = ..., preempted: _Optional[_Union[_common_pb2.Reason, _Mapping]] = ..., start: _Optional[_Union[_common_pb2.Estimate, _Mapping]] = ...) -> None: ...

class SuspectedNode(_message.Message):
    __slots__ = ("node", "reason", "attempt", "until")
    NODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    node: str
    reason: str
    attempt: int
    until: _timestamp_pb2.Timestamp
    def __init__(self, node: _Optional[str] = ..., reason: _Optional[str] = ..., attempt: _Optional[int] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class OutOfMemory(_message.Message):
    __slots__ = ("plan", "type")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    plan: str
    type: str
    def __init__(self, plan: _Optional[str] = ..., type: _Optional[str] = ...) -> None: ...

class Switch(_message.Message):
    __slots__ = ("kind", "before", "after", "accelerators_before", "accelerators_after", "reason", "step", "ordered_at", "done_at", "stood_still_seconds", "phases")
    KIND_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_AFTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ORDERED_AT_FIELD_NUMBER: _ClassVar[int]
    DONE_AT_FIELD_NUMBER: _ClassVar[int]
    STOOD_STILL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    kind: str
    before: str
    after: str
    accelerators_before: int
    accelerators_after: int
    reason: str
    step: int
    ordered_at: _timestamp_pb2.Timestamp
    done_at: _timestamp_pb2.Timestamp
    stood_still_seconds: float
    phases: _containers.RepeatedCompositeFieldContainer[_common_pb2.Phase]
    def __init__(self, kind: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ..., accelerators_before: _Optional[int] = ..., accelerators_after: _Optional[int] = ..., reason: _Optional[str] = ..., step: _Optional[int] = ..., ordered_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., done_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., stood_still_seconds: _Optional[float] = ..., phases: _Optional[_Iterable[_Union[_common_pb2.Phase, _Mapping]]] = ...) -> None: ...

class StreamLogsRequest(_message.Message):
    __slots__ = ("uid", "attempt", "unit", "tail_lines", "follow")
    UID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    uid: str
    attempt: int
    unit: int
    tail_lines: int
    follow: bool
    def __init__(self, uid: _Optional[str] = ..., attempt: _Optional[int] = ..., unit: _Optional[int] = ..., tail_lines: _Optional[int] = ..., follow: _Optional[bool] = ...) -> None: ...

class StreamLogsResponse(_message.Message):
    __slots__ = ("data", "attempt", "unit", "note")
    DATA_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    attempt: int
    unit: int
    note: str
    def __init__(self, data: _Optional[bytes] = ..., attempt: _Optional[int] = ..., unit: _Optional[int] = ..., note: _Optional[str] = ...) -> None: ...

class ListEventsRequest(_message.Message):
    __slots__ = ("uid", "after_sequence", "page_size")
    UID_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    uid: str
    after_sequence: int
    page_size: int
    def __init__(self, uid: _Optional[str] = ..., after_sequence: _Optional[int] = ..., page_size: _Optional[int] = ...) -> None: ...

class ListEventsResponse(_message.Message):
    __slots__ = ("events", "next_after_sequence")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[LoggedEvent]
    next_after_sequence: int
    def __init__(self, events: _Optional[_Iterable[_Union[LoggedEvent, _Mapping]]] = ..., next_after_sequence: _Optional[int] = ...) -> None: ...

class LoggedEvent(_message.Message):
    __slots__ = ("sequence", "at", "kind", "uid", "node", "job_name", "message", "reason", "body_json")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    JOB_NAME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BODY_JSON_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    at: _timestamp_pb2.Timestamp
    kind: str
    uid: str
    node: str
    job_name: str
    message: str
    reason: _common_pb2.Reason
    body_json: str
    def __init__(self, sequence: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[str] = ..., uid: _Optional[str] = ..., node: _Optional[str] = ..., job_name: _Optional[str] = ..., message: _Optional[str] = ..., reason: _Optional[_Union[_common_pb2.Reason, _Mapping]] = ..., body_json: _Optional[str] = ...) -> None: ...

class GetLossesRequest(_message.Message):
    __slots__ = ("uid", "after_step")
    UID_FIELD_NUMBER: _ClassVar[int]
    AFTER_STEP_FIELD_NUMBER: _ClassVar[int]
    uid: str
    after_step: int
    def __init__(self, uid: _Optional[str] = ..., after_step: _Optional[int] = ...) -> None: ...

class GetLossesResponse(_message.Message):
    __slots__ = ("points",)
    POINTS_FIELD_NUMBER: _ClassVar[int]
    points: _containers.RepeatedCompositeFieldContainer[LossPoint]
    def __init__(self, points: _Optional[_Iterable[_Union[LossPoint, _Mapping]]] = ...) -> None: ...

class LossPoint(_message.Message):
    __slots__ = ("step", "loss", "attempt", "at")
    STEP_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    step: int
    loss: float
    attempt: int
    at: _timestamp_pb2.Timestamp
    def __init__(self, step: _Optional[int] = ..., loss: _Optional[float] = ..., attempt: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
