from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Column(_message.Message):
    __slots__ = ("name", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("model", "columns")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    model: str
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    def __init__(self, model: _Optional[str] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("predictions", "served")
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    predictions: _containers.RepeatedCompositeFieldContainer[Prediction]
    served: Served
    def __init__(self, predictions: _Optional[_Iterable[_Union[Prediction, _Mapping]]] = ..., served: _Optional[_Union[Served, _Mapping]] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("score", "value", "error")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    score: float
    value: float
    error: str
    def __init__(self, score: _Optional[float] = ..., value: _Optional[float] = ..., error: _Optional[str] = ...) -> None: ...

class Served(_message.Message):
    __slots__ = ("version", "parameters", "applied", "event_time", "age_ms")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    version: int
    parameters: str
    applied: _containers.RepeatedScalarFieldContainer[int]
    event_time: int
    age_ms: float
    def __init__(self, version: _Optional[int] = ..., parameters: _Optional[str] = ..., applied: _Optional[_Iterable[int]] = ..., event_time: _Optional[int] = ..., age_ms: _Optional[float] = ...) -> None: ...

class RankRequest(_message.Message):
    __slots__ = ("model", "context", "candidates", "top", "filters")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    model: str
    context: _containers.RepeatedCompositeFieldContainer[Column]
    candidates: _containers.RepeatedCompositeFieldContainer[Column]
    top: int
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    def __init__(self, model: _Optional[str] = ..., context: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., candidates: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., top: _Optional[int] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("column", "not_in", "at_least", "at_most")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    IN_FIELD_NUMBER: _ClassVar[int]
    NOT_IN_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    AT_MOST_FIELD_NUMBER: _ClassVar[int]
    column: str
    not_in: Values
    at_least: float
    at_most: float
    def __init__(self, column: _Optional[str] = ..., not_in: _Optional[_Union[Values, _Mapping]] = ..., at_least: _Optional[float] = ..., at_most: _Optional[float] = ..., **kwargs) -> None: ...

class Values(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class RankResponse(_message.Message):
    __slots__ = ("ranked", "filtered", "unusable", "served")
    RANKED_FIELD_NUMBER: _ClassVar[int]
    FILTERED_FIELD_NUMBER: _ClassVar[int]
    UNUSABLE_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    ranked: _containers.RepeatedCompositeFieldContainer[Ranked]
    filtered: int
    unusable: int
    served: Served
    def __init__(self, ranked: _Optional[_Iterable[_Union[Ranked, _Mapping]]] = ..., filtered: _Optional[int] = ..., unusable: _Optional[int] = ..., served: _Optional[_Union[Served, _Mapping]] = ...) -> None: ...

class Ranked(_message.Message):
    __slots__ = ("candidate", "score", "value")
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    candidate: int
    score: float
    value: float
    def __init__(self, candidate: _Optional[int] = ..., score: _Optional[float] = ..., value: _Optional[float] = ...) -> None: ...

class RetrieveRequest(_message.Message):
    __slots__ = ("model", "top", "context", "vector", "not_in")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    NOT_IN_FIELD_NUMBER: _ClassVar[int]
    model: str
    top: int
    context: _containers.RepeatedCompositeFieldContainer[Column]
    vector: _containers.RepeatedScalarFieldContainer[float]
    not_in: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., top: _Optional[int] = ..., context: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., vector: _Optional[_Iterable[float]] = ..., not_in: _Optional[_Iterable[str]] = ...) -> None: ...

class RetrieveResponse(_message.Message):
    __slots__ = ("items", "served")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Retrieved]
    served: Served
    def __init__(self, items: _Optional[_Iterable[_Union[Retrieved, _Mapping]]] = ..., served: _Optional[_Union[Served, _Mapping]] = ...) -> None: ...

class Retrieved(_message.Message):
    __slots__ = ("item", "score")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    item: str
    score: float
    def __init__(self, item: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("model", "columns")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    model: str
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    def __init__(self, model: _Optional[str] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("prediction", "features", "served")
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    prediction: Prediction
    features: _containers.RepeatedCompositeFieldContainer[FeatureContribution]
    served: Served
    def __init__(self, prediction: _Optional[_Union[Prediction, _Mapping]] = ..., features: _Optional[_Iterable[_Union[FeatureContribution, _Mapping]]] = ..., served: _Optional[_Union[Served, _Mapping]] = ...) -> None: ...

class FeatureContribution(_message.Message):
    __slots__ = ("feature", "contribution")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    feature: str
    contribution: float
    def __init__(self, feature: _Optional[str] = ..., contribution: _Optional[float] = ...) -> None: ...
