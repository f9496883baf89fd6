from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_REFUSED: _ClassVar[Outcome]
    OUTCOME_APPLIED: _ClassVar[Outcome]
    OUTCOME_DUPLICATE: _ClassVar[Outcome]
    OUTCOME_GAP: _ClassVar[Outcome]
    OUTCOME_OVERLAP: _ClassVar[Outcome]

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_PLAIN: _ClassVar[Encoding]
    ENCODING_FLOAT16: _ClassVar[Encoding]
    ENCODING_BFLOAT16: _ClassVar[Encoding]
    ENCODING_INT8: _ClassVar[Encoding]
OUTCOME_REFUSED: Outcome
OUTCOME_APPLIED: Outcome
OUTCOME_DUPLICATE: Outcome
OUTCOME_GAP: Outcome
OUTCOME_OVERLAP: Outcome
ENCODING_PLAIN: Encoding
ENCODING_FLOAT16: Encoding
ENCODING_BFLOAT16: Encoding
ENCODING_INT8: Encoding

class PullRequest(_message.Message):
    __slots__ = ("model", "layout", "shards", "tables", "number")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    model: str
    layout: int
    shards: _containers.RepeatedScalarFieldContainer[int]
    tables: _containers.RepeatedCompositeFieldContainer[TableKeys]
    number: int
    def __init__(self, model: _Optional[str] = ..., layout: _Optional[int] = ..., shards: _Optional[_Iterable[int]] = ..., tables: _Optional[_Iterable[_Union[TableKeys, _Mapping]]] = ..., number: _Optional[int] = ...) -> None: ...

class TableKeys(_message.Message):
    __slots__ = ("table", "counts", "keys")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    table: int
    counts: _containers.RepeatedScalarFieldContainer[int]
    keys: bytes
    def __init__(self, table: _Optional[int] = ..., counts: _Optional[_Iterable[int]] = ..., keys: _Optional[bytes] = ...) -> None: ...

class PullResponse(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, values: _Optional[_Iterable[bytes]] = ...) -> None: ...

class PushRequest(_message.Message):
    __slots__ = ("model", "stream", "layout", "version", "partition", "generation", "to", "items", "pulled")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    PULLED_FIELD_NUMBER: _ClassVar[int]
    model: str
    stream: str
    layout: int
    version: int
    partition: int
    generation: int
    to: int
    items: _containers.RepeatedCompositeFieldContainer[Item]
    pulled: int
    def __init__(self, model: _Optional[str] = ..., stream: _Optional[str] = ..., layout: _Optional[int] = ..., version: _Optional[int] = ..., partition: _Optional[int] = ..., generation: _Optional[int] = ..., to: _Optional[int] = ..., items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., pulled: _Optional[int] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("shard", "trained", "held", "skipped", "fingerprint", "event_time", "rows")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TRAINED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    shard: int
    trained: int
    held: int
    skipped: int
    fingerprint: Fingerprint
    event_time: int
    rows: _containers.RepeatedCompositeFieldContainer[Rows]
    def __init__(self, shard: _Optional[int] = ..., trained: _Optional[int] = ..., held: _Optional[int] = ..., skipped: _Optional[int] = ..., fingerprint: _Optional[_Union[Fingerprint, _Mapping]] = ..., event_time: _Optional[int] = ..., rows: _Optional[_Iterable[_Union[Rows, _Mapping]]] = ..., **kwargs) -> None: ...

class Fingerprint(_message.Message):
    __slots__ = ("count", "sum", "xor")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    XOR_FIELD_NUMBER: _ClassVar[int]
    count: int
    sum: int
    xor: int
    def __init__(self, count: _Optional[int] = ..., sum: _Optional[int] = ..., xor: _Optional[int] = ...) -> None: ...

class Rows(_message.Message):
    __slots__ = ("table", "keys", "values", "pulled")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    PULLED_FIELD_NUMBER: _ClassVar[int]
    table: int
    keys: bytes
    values: bytes
    pulled: bytes
    def __init__(self, table: _Optional[int] = ..., keys: _Optional[bytes] = ..., values: _Optional[bytes] = ..., pulled: _Optional[bytes] = ...) -> None: ...

class PushResponse(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[Answer]
    def __init__(self, answers: _Optional[_Iterable[_Union[Answer, _Mapping]]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("shard", "outcome", "applied", "reason", "message")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    shard: int
    outcome: Outcome
    applied: int
    reason: str
    message: str
    def __init__(self, shard: _Optional[int] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., applied: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class ExchangeRequest(_message.Message):
    __slots__ = ("push", "pull")
    PUSH_FIELD_NUMBER: _ClassVar[int]
    PULL_FIELD_NUMBER: _ClassVar[int]
    push: PushRequest
    pull: PullRequest
    def __init__(self, push: _Optional[_Union[PushRequest, _Mapping]] = ..., pull: _Optional[_Union[PullRequest, _Mapping]] = ...) -> None: ...

class ExchangeResponse(_message.Message):
    __slots__ = ("push", "pull", "more", "reason", "message")
    PUSH_FIELD_NUMBER: _ClassVar[int]
    PULL_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    push: PushResponse
    pull: PullResponse
    more: bool
    reason: str
    message: str
    def __init__(self, push: _Optional[_Union[PushResponse, _Mapping]] = ..., pull: _Optional[_Union[PullResponse, _Mapping]] = ..., more: bool = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class AppliedRequest(_message.Message):
    __slots__ = ("model", "shards")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    shards: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, model: _Optional[str] = ..., shards: _Optional[_Iterable[int]] = ...) -> None: ...

class AppliedResponse(_message.Message):
    __slots__ = ("shards",)
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedCompositeFieldContainer[ShardProgress]
    def __init__(self, shards: _Optional[_Iterable[_Union[ShardProgress, _Mapping]]] = ...) -> None: ...

class HoldingsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HoldingsResponse(_message.Message):
    __slots__ = ("holdings",)
    HOLDINGS_FIELD_NUMBER: _ClassVar[int]
    holdings: _containers.RepeatedCompositeFieldContainer[Holding]
    def __init__(self, holdings: _Optional[_Iterable[_Union[Holding, _Mapping]]] = ...) -> None: ...

class Holding(_message.Message):
    __slots__ = ("model", "shard", "fence", "copy", "rows", "bytes", "keys_pulled", "keys_pushed", "seq")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    COPY_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    KEYS_PULLED_FIELD_NUMBER: _ClassVar[int]
    KEYS_PUSHED_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    model: str
    shard: int
    fence: int
    copy: bool
    rows: int
    bytes: int
    keys_pulled: int
    keys_pushed: int
    seq: int
    def __init__(self, model: _Optional[str] = ..., shard: _Optional[int] = ..., fence: _Optional[int] = ..., copy: bool = ..., rows: _Optional[int] = ..., bytes: _Optional[int] = ..., keys_pulled: _Optional[int] = ..., keys_pushed: _Optional[int] = ..., seq: _Optional[int] = ...) -> None: ...

class ShardProgress(_message.Message):
    __slots__ = ("shard", "fence", "seq", "rows", "partitions")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    shard: int
    fence: int
    seq: int
    rows: int
    partitions: _containers.RepeatedCompositeFieldContainer[Progress]
    def __init__(self, shard: _Optional[int] = ..., fence: _Optional[int] = ..., seq: _Optional[int] = ..., rows: _Optional[int] = ..., partitions: _Optional[_Iterable[_Union[Progress, _Mapping]]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("applied", "trained", "held", "skipped", "fingerprint", "event_time")
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    TRAINED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    applied: int
    trained: int
    held: int
    skipped: int
    fingerprint: Fingerprint
    event_time: int
    def __init__(self, applied: _Optional[int] = ..., trained: _Optional[int] = ..., held: _Optional[int] = ..., skipped: _Optional[int] = ..., fingerprint: _Optional[_Union[Fingerprint, _Mapping]] = ..., event_time: _Optional[int] = ...) -> None: ...

class TakeRequest(_message.Message):
    __slots__ = ("model", "bucket", "shards")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    bucket: str
    shards: _containers.RepeatedCompositeFieldContainer[SnapshotWant]
    def __init__(self, model: _Optional[str] = ..., bucket: _Optional[str] = ..., shards: _Optional[_Iterable[_Union[SnapshotWant, _Mapping]]] = ...) -> None: ...

class SnapshotWant(_message.Message):
    __slots__ = ("shard", "parent")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    shard: int
    parent: str
    def __init__(self, shard: _Optional[int] = ..., parent: _Optional[str] = ...) -> None: ...

class TakeResponse(_message.Message):
    __slots__ = ("shard", "fence", "applied", "file", "reason", "message", "seq")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    shard: int
    fence: int
    applied: _containers.RepeatedScalarFieldContainer[int]
    file: bytes
    reason: str
    message: str
    seq: int
    def __init__(self, shard: _Optional[int] = ..., fence: _Optional[int] = ..., applied: _Optional[_Iterable[int]] = ..., file: _Optional[bytes] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., seq: _Optional[int] = ...) -> None: ...

class LookupRequest(_message.Message):
    __slots__ = ("model", "layout", "shards", "tables", "encoding", "seen", "max_age_ms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    model: str
    layout: int
    shards: _containers.RepeatedScalarFieldContainer[int]
    tables: _containers.RepeatedCompositeFieldContainer[TableKeys]
    encoding: Encoding
    seen: _containers.RepeatedCompositeFieldContainer[Boundary]
    max_age_ms: float
    def __init__(self, model: _Optional[str] = ..., layout: _Optional[int] = ..., shards: _Optional[_Iterable[int]] = ..., tables: _Optional[_Iterable[_Union[TableKeys, _Mapping]]] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., seen: _Optional[_Iterable[_Union[Boundary, _Mapping]]] = ..., max_age_ms: _Optional[float] = ...) -> None: ...

class Boundary(_message.Message):
    __slots__ = ("fence", "seq")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    fence: int
    seq: int
    def __init__(self, fence: _Optional[int] = ..., seq: _Optional[int] = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("values", "shards")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[bytes]
    shards: _containers.RepeatedCompositeFieldContainer[ShardFreshness]
    def __init__(self, values: _Optional[_Iterable[bytes]] = ..., shards: _Optional[_Iterable[_Union[ShardFreshness, _Mapping]]] = ...) -> None: ...

class ShardFreshness(_message.Message):
    __slots__ = ("boundary", "applied", "event_time", "age_ms")
    BOUNDARY_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    boundary: Boundary
    applied: _containers.RepeatedScalarFieldContainer[int]
    event_time: int
    age_ms: float
    def __init__(self, boundary: _Optional[_Union[Boundary, _Mapping]] = ..., applied: _Optional[_Iterable[int]] = ..., event_time: _Optional[int] = ..., age_ms: _Optional[float] = ...) -> None: ...

class FollowRequest(_message.Message):
    __slots__ = ("model", "reading", "layout", "tables", "encoding", "begin", "end")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    READING_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    model: str
    reading: bool
    layout: int
    tables: _containers.RepeatedScalarFieldContainer[int]
    encoding: Encoding
    begin: _containers.RepeatedScalarFieldContainer[int]
    end: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, model: _Optional[str] = ..., reading: bool = ..., layout: _Optional[int] = ..., tables: _Optional[_Iterable[int]] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., begin: _Optional[_Iterable[int]] = ..., end: _Optional[_Iterable[int]] = ...) -> None: ...

class FollowResponse(_message.Message):
    __slots__ = ("deltas", "lost")
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    deltas: _containers.RepeatedCompositeFieldContainer[Delta]
    lost: _containers.RepeatedCompositeFieldContainer[LostShard]
    def __init__(self, deltas: _Optional[_Iterable[_Union[Delta, _Mapping]]] = ..., lost: _Optional[_Iterable[_Union[LostShard, _Mapping]]] = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("progress", "since", "part", "more", "blocks", "lineage", "applied_at", "sent_at")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    APPLIED_AT_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_FIELD_NUMBER: _ClassVar[int]
    progress: ShardProgress
    since: int
    part: int
    more: bool
    blocks: _containers.RepeatedCompositeFieldContainer[Block]
    lineage: int
    applied_at: int
    sent_at: int
    def __init__(self, progress: _Optional[_Union[ShardProgress, _Mapping]] = ..., since: _Optional[int] = ..., part: _Optional[int] = ..., more: bool = ..., blocks: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., lineage: _Optional[int] = ..., applied_at: _Optional[int] = ..., sent_at: _Optional[int] = ...) -> None: ...

class Block(_message.Message):
    __slots__ = ("table", "stride", "rows")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    table: int
    stride: int
    rows: bytes
    def __init__(self, table: _Optional[int] = ..., stride: _Optional[int] = ..., rows: _Optional[bytes] = ...) -> None: ...

class LostShard(_message.Message):
    __slots__ = ("shard", "reason", "message")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    shard: int
    reason: str
    message: str
    def __init__(self, shard: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("after_version",)
    AFTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    after_version: int
    def __init__(self, after_version: _Optional[int] = ...) -> None: ...

class ShardMap(_message.Message):
    __slots__ = ("version", "shards", "addresses")
    class AddressesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    version: int
    shards: _containers.RepeatedCompositeFieldContainer[ShardOwner]
    addresses: _containers.ScalarMap[str, str]
    def __init__(self, version: _Optional[int] = ..., shards: _Optional[_Iterable[_Union[ShardOwner, _Mapping]]] = ..., addresses: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ShardOwner(_message.Message):
    __slots__ = ("node", "fence", "standbys", "target")
    NODE_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    STANDBYS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    node: str
    fence: int
    standbys: _containers.RepeatedScalarFieldContainer[str]
    target: str
    def __init__(self, node: _Optional[str] = ..., fence: _Optional[int] = ..., standbys: _Optional[_Iterable[str]] = ..., target: _Optional[str] = ...) -> None: ...
