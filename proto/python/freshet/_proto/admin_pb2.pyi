from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ApplyModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class ApplyModelResponse(_message.Message):
    __slots__ = ("version", "changed")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    version: int
    changed: bool
    def __init__(self, version: _Optional[int] = ..., changed: bool = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "spec", "layout", "stream", "partitions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    spec: bytes
    layout: bytes
    stream: str
    partitions: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., spec: _Optional[bytes] = ..., layout: _Optional[bytes] = ..., stream: _Optional[str] = ..., partitions: _Optional[int] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Status(_message.Message):
    __slots__ = ("cluster", "shards", "nodes", "workers", "models", "shards_without_owner", "map_version")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_WITHOUT_OWNER_FIELD_NUMBER: _ClassVar[int]
    MAP_VERSION_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    shards: int
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    models: _containers.RepeatedCompositeFieldContainer[ModelStatus]
    shards_without_owner: int
    map_version: int
    def __init__(self, cluster: _Optional[str] = ..., shards: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[ModelStatus, _Mapping]]] = ..., shards_without_owner: _Optional[int] = ..., map_version: _Optional[int] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("id", "address", "shards", "copies", "name", "zone", "capacity", "draining", "arriving")
    ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    ARRIVING_FIELD_NUMBER: _ClassVar[int]
    id: str
    address: str
    shards: int
    copies: int
    name: str
    zone: str
    capacity: float
    draining: bool
    arriving: int
    def __init__(self, id: _Optional[str] = ..., address: _Optional[str] = ..., shards: _Optional[int] = ..., copies: _Optional[int] = ..., name: _Optional[str] = ..., zone: _Optional[str] = ..., capacity: _Optional[float] = ..., draining: bool = ..., arriving: _Optional[int] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("id", "model", "partitions", "events", "busy_seconds")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    BUSY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    partitions: _containers.RepeatedScalarFieldContainer[int]
    events: int
    busy_seconds: float
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., partitions: _Optional[_Iterable[int]] = ..., events: _Optional[int] = ..., busy_seconds: _Optional[float] = ...) -> None: ...

class ModelStatus(_message.Message):
    __slots__ = ("name", "version", "stream", "generation", "partitions", "rows", "progress_error")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_ERROR_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    stream: str
    generation: int
    partitions: _containers.RepeatedCompositeFieldContainer[PartitionStatus]
    rows: int
    progress_error: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., stream: _Optional[str] = ..., generation: _Optional[int] = ..., partitions: _Optional[_Iterable[_Union[PartitionStatus, _Mapping]]] = ..., rows: _Optional[int] = ..., progress_error: _Optional[str] = ...) -> None: ...

class PartitionStatus(_message.Message):
    __slots__ = ("partition", "worker", "applied", "end", "end_known", "skipped", "event_time", "newest")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    END_KNOWN_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    partition: int
    worker: str
    applied: int
    end: int
    end_known: bool
    skipped: int
    event_time: int
    newest: int
    def __init__(self, partition: _Optional[int] = ..., worker: _Optional[str] = ..., applied: _Optional[int] = ..., end: _Optional[int] = ..., end_known: bool = ..., skipped: _Optional[int] = ..., event_time: _Optional[int] = ..., newest: _Optional[int] = ...) -> None: ...

class TakeEpochRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class TakeEpochResponse(_message.Message):
    __slots__ = ("epoch", "taken", "bytes", "shards_kept")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARDS_KEPT_FIELD_NUMBER: _ClassVar[int]
    epoch: Epoch
    taken: bool
    bytes: int
    shards_kept: int
    def __init__(self, epoch: _Optional[_Union[Epoch, _Mapping]] = ..., taken: bool = ..., bytes: _Optional[int] = ..., shards_kept: _Optional[int] = ...) -> None: ...

class ListEpochsRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ListEpochsResponse(_message.Message):
    __slots__ = ("model", "bucket", "epochs")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    model: str
    bucket: str
    epochs: _containers.RepeatedCompositeFieldContainer[Epoch]
    def __init__(self, model: _Optional[str] = ..., bucket: _Optional[str] = ..., epochs: _Optional[_Iterable[_Union[Epoch, _Mapping]]] = ...) -> None: ...

class Epoch(_message.Message):
    __slots__ = ("number", "lineage", "created", "events", "manifest", "hash", "bytes")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    number: int
    lineage: int
    created: int
    events: int
    manifest: str
    hash: str
    bytes: int
    def __init__(self, number: _Optional[int] = ..., lineage: _Optional[int] = ..., created: _Optional[int] = ..., events: _Optional[int] = ..., manifest: _Optional[str] = ..., hash: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class RestoreEpochRequest(_message.Message):
    __slots__ = ("model", "epoch")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    model: str
    epoch: int
    def __init__(self, model: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class RestoreEpochResponse(_message.Message):
    __slots__ = ("lineage",)
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    lineage: int
    def __init__(self, lineage: _Optional[int] = ...) -> None: ...

class AdoptEpochRequest(_message.Message):
    __slots__ = ("model", "manifest", "hash", "bytes")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    model: str
    manifest: str
    hash: str
    bytes: int
    def __init__(self, model: _Optional[str] = ..., manifest: _Optional[str] = ..., hash: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class AdoptEpochResponse(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: Epoch
    def __init__(self, epoch: _Optional[_Union[Epoch, _Mapping]] = ...) -> None: ...

class ListShardsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListShardsResponse(_message.Message):
    __slots__ = ("shards", "silent")
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SILENT_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedCompositeFieldContainer[ShardStatus]
    silent: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, shards: _Optional[_Iterable[_Union[ShardStatus, _Mapping]]] = ..., silent: _Optional[_Iterable[str]] = ...) -> None: ...

class ShardStatus(_message.Message):
    __slots__ = ("owner", "fence", "standbys", "target", "rows", "bytes", "keys_pulled", "keys_pushed")
    OWNER_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    STANDBYS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    KEYS_PULLED_FIELD_NUMBER: _ClassVar[int]
    KEYS_PUSHED_FIELD_NUMBER: _ClassVar[int]
    owner: str
    fence: int
    standbys: _containers.RepeatedScalarFieldContainer[str]
    target: str
    rows: int
    bytes: int
    keys_pulled: int
    keys_pushed: int
    def __init__(self, owner: _Optional[str] = ..., fence: _Optional[int] = ..., standbys: _Optional[_Iterable[str]] = ..., target: _Optional[str] = ..., rows: _Optional[int] = ..., bytes: _Optional[int] = ..., keys_pulled: _Optional[int] = ..., keys_pushed: _Optional[int] = ...) -> None: ...

class MoveShardsRequest(_message.Message):
    __slots__ = ("shards", "node")
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedScalarFieldContainer[int]
    node: str
    def __init__(self, shards: _Optional[_Iterable[int]] = ..., node: _Optional[str] = ...) -> None: ...

class MoveShardsResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class DrainNodeRequest(_message.Message):
    __slots__ = ("node", "undo")
    NODE_FIELD_NUMBER: _ClassVar[int]
    UNDO_FIELD_NUMBER: _ClassVar[int]
    node: str
    undo: bool
    def __init__(self, node: _Optional[str] = ..., undo: bool = ...) -> None: ...

class DrainNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class RebalanceRequest(_message.Message):
    __slots__ = ("dry_run",)
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    dry_run: bool
    def __init__(self, dry_run: bool = ...) -> None: ...

class RebalanceResponse(_message.Message):
    __slots__ = ("moves",)
    MOVES_FIELD_NUMBER: _ClassVar[int]
    moves: _containers.RepeatedCompositeFieldContainer[Move]
    def __init__(self, moves: _Optional[_Iterable[_Union[Move, _Mapping]]] = ...) -> None: ...

class Move(_message.Message):
    __slots__ = ("shard", "to", "why")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    shard: int
    to: str
    why: str
    def __init__(self, shard: _Optional[int] = ..., to: _Optional[str] = ..., why: _Optional[str] = ..., **kwargs) -> None: ...

class ListEventsRequest(_message.Message):
    __slots__ = ("most",)
    MOST_FIELD_NUMBER: _ClassVar[int]
    most: int
    def __init__(self, most: _Optional[int] = ...) -> None: ...

class ListEventsResponse(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("at", "kind", "what", "why", "by")
    AT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    at: int
    kind: str
    what: str
    why: str
    by: str
    def __init__(self, at: _Optional[int] = ..., kind: _Optional[str] = ..., what: _Optional[str] = ..., why: _Optional[str] = ..., by: _Optional[str] = ...) -> None: ...
