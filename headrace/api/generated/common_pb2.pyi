import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Estimate(_message.Message):
    __slots__ = ("low", "high", "coverage", "made_at", "median", "outcomes_missing")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    MADE_AT_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_MISSING_FIELD_NUMBER: _ClassVar[int]
    low: float
    high: float
    coverage: float
    made_at: _timestamp_pb2.Timestamp
    median: float
    outcomes_missing: int
    def __init__(self, low: _Optional[float] = ..., high: _Optional[float] = ..., coverage: _Optional[float] = ..., made_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., median: _Optional[float] = ..., outcomes_missing: _Optional[int] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("code", "message", "wanted", "available", "holders", "more_holders", "type", "behind", "preemption")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    MORE_HOLDERS_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    BEHIND_FIELD_NUMBER: _ClassVar[int]
    PREEMPTION_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    wanted: int
    available: int
    holders: _containers.RepeatedScalarFieldContainer[str]
    more_holders: int
    type: str
    behind: str
    preemption: Preemption
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., wanted: _Optional[int] = ..., available: _Optional[int] = ..., holders: _Optional[_Iterable[str]] = ..., more_holders: _Optional[int] = ..., type: _Optional[str] = ..., behind: _Optional[str] = ..., preemption: _Optional[_Union[Preemption, _Mapping]] = ...) -> None: ...

class Preemption(_message.Message):
    __slots__ = ("uid", "queue", "priority", "preempted_queue", "preempted_priority")
    UID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    PREEMPTED_QUEUE_FIELD_NUMBER: _ClassVar[int]
    PREEMPTED_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    uid: str
    queue: str
    priority: int
    preempted_queue: str
    preempted_priority: int
    def __init__(self, uid: _Optional[str] = ..., queue: _Optional[str] = ..., priority: _Optional[int] = ..., preempted_queue: _Optional[str] = ..., preempted_priority: _Optional[int] = ...) -> None: ...

class Condition(_message.Message):
    __slots__ = ("type", "status", "reason", "message", "observed_generation", "last_transition_time")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    LAST_TRANSITION_TIME_FIELD_NUMBER: _ClassVar[int]
    type: str
    status: str
    reason: str
    message: str
    observed_generation: int
    last_transition_time: _timestamp_pb2.Timestamp
    def __init__(self, type: _Optional[str] = ..., status: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., observed_generation: _Optional[int] = ..., last_transition_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class LaunchUnit(_message.Message):
    __slots__ = ("index", "node", "accelerators", "first_rank", "cpu_cores", "host_memory_bytes", "joins")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_FIELD_NUMBER: _ClassVar[int]
    FIRST_RANK_FIELD_NUMBER: _ClassVar[int]
    CPU_CORES_FIELD_NUMBER: _ClassVar[int]
    HOST_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    JOINS_FIELD_NUMBER: _ClassVar[int]
    index: int
    node: str
    accelerators: _containers.RepeatedScalarFieldContainer[str]
    first_rank: int
    cpu_cores: _containers.RepeatedScalarFieldContainer[int]
    host_memory_bytes: int
    joins: bool
    def __init__(self, index: _Optional[int] = ..., node: _Optional[str] = ..., accelerators: _Optional[_Iterable[str]] = ..., first_rank: _Optional[int] = ..., cpu_cores: _Optional[_Iterable[int]] = ..., host_memory_bytes: _Optional[int] = ..., joins: _Optional[bool] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("step", "steps_total", "checkpoint_step", "loss", "step_seconds", "reported_at")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_STEP_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REPORTED_AT_FIELD_NUMBER: _ClassVar[int]
    step: int
    steps_total: int
    checkpoint_step: int
    loss: float
    step_seconds: float
    reported_at: _timestamp_pb2.Timestamp
    def __init__(self, step: _Optional[int] = ..., steps_total: _Optional[int] = ..., checkpoint_step: _Optional[int] = ..., loss: _Optional[float] = ..., step_seconds: _Optional[float] = ..., reported_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Phase(_message.Message):
    __slots__ = ("name", "seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    seconds: float
    def __init__(self, name: _Optional[str] = ..., seconds: _Optional[float] = ...) -> None: ...

class MeasuredPlan(_message.Message):
    __slots__ = ("model", "accelerators", "global_batch", "sequence_length", "precision", "plan", "status", "placement", "reason", "parameters", "steps", "iteration", "iteration_lower", "iteration_upper", "forward", "backward_communication", "optimizer", "offload", "peak_allocated", "peak_process", "host", "tokens_rate", "flops_rate", "share_of_peak", "device", "cpu_threads", "torch", "cuda", "nccl", "driver", "headrace", "date")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_BATCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    ITERATION_LOWER_FIELD_NUMBER: _ClassVar[int]
    ITERATION_UPPER_FIELD_NUMBER: _ClassVar[int]
    FORWARD_FIELD_NUMBER: _ClassVar[int]
    BACKWARD_COMMUNICATION_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    OFFLOAD_FIELD_NUMBER: _ClassVar[int]
    PEAK_ALLOCATED_FIELD_NUMBER: _ClassVar[int]
    PEAK_PROCESS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    TOKENS_RATE_FIELD_NUMBER: _ClassVar[int]
    FLOPS_RATE_FIELD_NUMBER: _ClassVar[int]
    SHARE_OF_PEAK_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    CPU_THREADS_FIELD_NUMBER: _ClassVar[int]
    TORCH_FIELD_NUMBER: _ClassVar[int]
    CUDA_FIELD_NUMBER: _ClassVar[int]
    NCCL_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    HEADRACE_FIELD_NUMBER: _ClassVar[int]
    DATE_FIELD_NUMBER: _ClassVar[int]
    model: str
    accelerators: int
    global_batch: int
    sequence_length: int
    precision: str
    plan: str
    status: str
    placement: str
    reason: str
    parameters: int
    steps: int
    iteration: float
    iteration_lower: float
    iteration_upper: float
    forward: float
    backward_communication: float
    optimizer: float
    offload: float
    peak_allocated: int
    peak_process: int
    host: int
    tokens_rate: float
    flops_rate: float
    share_of_peak: float
    device: str
    cpu_threads: int
    torch: str
    cuda: str
    nccl: str
    driver: str
    headrace: str
    date: str
    def __init__(self, model: _Optional[str] = ..., accelerators: _Optional[int] = ..., global_batch: _Optional[int] = ..., sequence_length: _Optional[int] = ..., precision: _Optional[str] = ..., plan: _Optional[str] = ..., status: _Optional[str] = ..., placement: _Optional[str] = ..., reason: _Optional[str] = ..., parameters: _Optional[int] = ..., steps: _Optional[int] = ..., iteration: _Optional[float] = ..., iteration_lower: _Optional[float] = ..., iteration_upper: _Optional[float] = ..., forward: _Optional[float] = ..., backward_communication: _Optional[float] = ..., optimizer: _Optional[float] = ..., offload: _Optional[float] = ..., peak_allocated: _Optional[int] = ..., peak_process: _Optional[int] = ..., host: _Optional[int] = ..., tokens_rate: _Optional[float] = ..., flops_rate: _Optional[float] = ..., share_of_peak: _Optional[float] = ..., device: _Optional[str] = ..., cpu_threads: _Optional[int] = ..., torch: _Optional[str] = ..., cuda: _Optional[str] = ..., nccl: _Optional[str] = ..., driver: _Optional[str] = ..., headrace: _Optional[str] = ..., date: _Optional[str] = ...) -> None: ...

class Queue(_message.Message):
    __slots__ = ("name", "quota_accelerators", "submitters", "held_accelerators", "jobs_running", "jobs_waiting", "borrowing_accelerators", "namespaces", "waiting_accelerators")
    NAME_FIELD_NUMBER: _ClassVar[int]
    QUOTA_ACCELERATORS_FIELD_NUMBER: _ClassVar[int]
    SUBMITTERS_FIELD_NUMBER: _ClassVar[int]
    HELD_ACCELERATORS_FIELD_NUMBER: _ClassVar[int]
    JOBS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    JOBS_WAITING_FIELD_NUMBER: _ClassVar[int]
    BORROWING_ACCELERATORS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    WAITING_ACCELERATORS_FIELD_NUMBER: _ClassVar[int]
    name: str
    quota_accelerators: int
    submitters: _containers.RepeatedScalarFieldContainer[str]
    held_accelerators: int
    jobs_running: int
    jobs_waiting: int
    borrowing_accelerators: int
    namespaces: _containers.RepeatedScalarFieldContainer[str]
    waiting_accelerators: int
    def __init__(self, name: _Optional[str] = ..., quota_accelerators: _Optional[int] = ..., submitters: _Optional[_Iterable[str]] = ..., held_accelerators: _Optional[int] = ..., jobs_running: _Optional[int] = ..., jobs_waiting: _Optional[int] = ..., borrowing_accelerators: _Optional[int] = ..., namespaces: _Optional[_Iterable[str]] = ..., waiting_accelerators: _Optional[int] = ...) -> None: ...
