"""What a pod is asked, as messages, and its answers as arrays. Nothing here does I/O."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Generic, TypeVar, Union

import numpy as np
import numpy.typing as npt

from ._errors import Corrupt, Invalid, decoded
from ._proto import predict_pb2

_SERVICE = "/freshet.predict.v1.Predictions/"

T = TypeVar("T")

# A value of an event. Text is sent as it is, a number as str() has it; None and NaN are
# missing. A feature of text is compared byte for byte: 712 and 712.0 are two values.
Value = Union[str, int, float, None]
Event = Mapping[str, Value]
# Events by column, each with one value for each event or one for all, or one by one.
Events = Union[Mapping[str, Any], Sequence[Event]]


@dataclass(frozen=True)
class Served:
    """What an answer was computed from.

    version: that of the model's spec. parameters: "live", or "epoch N". applied: by
    partition of the stream, all events below this offset are in. event_time: the largest
    that is in, in milliseconds since 1970; 0 if unknown. age_ms: milliseconds since the
    parameters were last known to be all that there was.
    """

    version: int
    parameters: str
    applied: tuple[int, ...]
    event_time: int
    age_ms: float


@dataclass(frozen=True)
class Predictions:
    """What the model says about events, in their order.

    values: float64, (events,): probabilities under the log loss, scores under the squared
    loss. scores: float32, (events,): the network's outputs. errors: by the event's place,
    why it cannot be used; its value and score are NaN.
    """

    values: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float32]
    errors: Mapping[int, str]
    served: Served


@dataclass(frozen=True)
class Filter:
    """Leaves candidates out by a column of theirs, which need not be one of the spec's.

    One of the tests is given: is_in keeps those whose value is one of these, not_in leaves
    those out; at_least and at_most keep those whose value is a number of at least, or at
    most, this.
    """

    column: str
    is_in: Sequence[Value] | None = None
    not_in: Sequence[Value] | None = None
    at_least: float | None = None
    at_most: float | None = None

    def message(self) -> predict_pb2.Filter:
        """Returns the filter as it travels."""
        tests: dict[str, Any] = {"in": self.is_in, "not_in": self.not_in, "at_least": self.at_least, "at_most": self.at_most}
        tests = {name: test for name, test in tests.items() if test is not None}
        if len(tests) != 1:
            raise Invalid(f"filter of column {self.column!r} with {len(tests)} tests: give one of is_in, not_in, at_least, at_most")
        for name in {"in", "not_in"} & set(tests):
            tests[name] = predict_pb2.Values(values=_texts(self.column, tests[name]))
        return predict_pb2.Filter(column=self.column, **tests)


@dataclass(frozen=True)
class Ranking:
    """Candidates, best first.

    candidates: int64, (ranked,): their places in the request. scores: float32, values:
    float64, (ranked,), as in Predictions. filtered candidates were left out by filters,
    unusable ones could not be scored.
    """

    candidates: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    values: npt.NDArray[np.float64]
    filtered: int
    unusable: int
    served: Served


@dataclass(frozen=True)
class Retrieved:
    """Items with the largest inner products with a query, largest first.

    items: their names. scores: float32, (items,).
    """

    items: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    served: Served


@dataclass(frozen=True)
class Explanation:
    """A prediction, and by feature the score less the score without it, in the spec's order.

    If the event cannot be used, error says why, and value and score are NaN.
    """

    value: float
    score: float
    error: str
    features: Mapping[str, float]
    served: Served


@dataclass(frozen=True)
class Question(Generic[T]):
    """A call of a pod, and how its reply is read."""

    method: str
    request: bytes
    read: Callable[[bytes], T]


def predict(events: Events, model: str) -> Question[Predictions]:
    """Asks what the model says about events."""
    columns, n = _columns(events)
    if n == 0:
        raise Invalid("no events: give at least one")

    def read(reply: bytes) -> Predictions:
        m = decoded(predict_pb2.PredictResponse, reply)
        if len(m.predictions) != n:
            raise Corrupt(f"{len(m.predictions)} predictions of {n} events")
        errors = {i: p.error for i, p in enumerate(m.predictions) if p.error}
        values = np.fromiter((p.value for p in m.predictions), np.float64, n)
        scores = np.fromiter((p.score for p in m.predictions), np.float32, n)
        unusable = list(errors)
        values[unusable], scores[unusable] = math.nan, math.nan
        return Predictions(values, scores, errors, _served(m.served))

    request = predict_pb2.PredictRequest(model=model, columns=columns)
    return Question(_SERVICE + "Predict", request.SerializeToString(), read)


def rank(context: Event, candidates: Events, top: int, filters: Sequence[Filter], model: str) -> Question[Ranking]:
    """Asks for the best candidates."""
    columns, n = _columns(candidates)
    if n == 0:
        raise Invalid("no candidates: give at least one")
    columns = [_each(c, n) for c in columns]

    def read(reply: bytes) -> Ranking:
        m = decoded(predict_pb2.RankResponse, reply)
        ranked = len(m.ranked)
        if any(r.candidate >= n for r in m.ranked):
            raise Corrupt(f"a ranking of {n} candidates that names others")
        return Ranking(
            np.fromiter((r.candidate for r in m.ranked), np.int64, ranked),
            np.fromiter((r.score for r in m.ranked), np.float32, ranked),
            np.fromiter((r.value for r in m.ranked), np.float64, ranked),
            m.filtered,
            m.unusable,
            _served(m.served),
        )

    request = predict_pb2.RankRequest(
        model=model, context=_one(context), candidates=columns, top=_count(top), filters=[f.message() for f in filters]
    )
    return Question(_SERVICE + "Rank", request.SerializeToString(), read)


def retrieve(context: Event | None, vector: Any, top: int, not_in: Sequence[Value], model: str) -> Question[Retrieved]:
    """Asks for the items nearest to a query."""
    if (context is None) == (vector is None):
        raise Invalid("a query is made of a context or a vector: give one of them")
    try:
        query = np.asarray(() if vector is None else vector, np.float32)
    except (TypeError, ValueError):
        query = np.empty((0, 0), np.float32)
    if query.ndim != 1 or not np.isfinite(query).all():
        raise Invalid("a query's vector has one dimension and finite numbers")

    def read(reply: bytes) -> Retrieved:
        m = decoded(predict_pb2.RetrieveResponse, reply)
        scores = np.fromiter((r.score for r in m.items), np.float32, len(m.items))
        return Retrieved(tuple(r.item for r in m.items), scores, _served(m.served))

    request = predict_pb2.RetrieveRequest(
        model=model, top=_count(top), context=_one(context or {}), vector=query.tolist(), not_in=_texts("not_in", not_in)
    )
    return Question(_SERVICE + "Retrieve", request.SerializeToString(), read)


def explain(event: Event, model: str) -> Question[Explanation]:
    """Asks what each feature adds to the score of an event."""

    def read(reply: bytes) -> Explanation:
        m = decoded(predict_pb2.ExplainResponse, reply)
        p = m.prediction
        value, score = (math.nan, math.nan) if p.error else (p.value, p.score)
        return Explanation(value, score, p.error, {f.feature: f.contribution for f in m.features}, _served(m.served))

    request = predict_pb2.ExplainRequest(model=model, columns=_one(event))
    return Question(_SERVICE + "Explain", request.SerializeToString(), read)


def _served(m: predict_pb2.Served) -> Served:
    return Served(m.version, m.parameters, tuple(m.applied), m.event_time, m.age_ms)


def _columns(events: Events) -> tuple[list[predict_pb2.Column], int]:
    """Returns events by column, and how many there are."""
    if not isinstance(events, Mapping):
        rows = list(events)
        if not all(isinstance(row, Mapping) for row in rows):
            raise Invalid("events that are no mappings: give {column: values}, or [{column: value}, ...]")
        names = list(dict.fromkeys(name for row in rows for name in row))
        return [_column(name, [row.get(name) for row in rows]) for name in names], len(rows)
    columns = [_column(name, values) for name, values in events.items()]
    lengths = {name: len(c.values) for name, c in zip(events, columns)}
    n = max((k for k in lengths.values() if k != 1), default=min(1, len(columns)))
    for name, k in lengths.items():
        if k not in (1, n):
            raise Invalid(f"column {name!r} has {k} values, another {n}: give one for each event, or one for all")
    return columns, n


def _one(event: Event) -> list[predict_pb2.Column]:
    if not isinstance(event, Mapping):
        raise Invalid(f"an event that is {event!r}: give {{column: value}}")
    return [_column(name, [value]) for name, value in event.items()]


def _each(c: predict_pb2.Column, n: int) -> predict_pb2.Column:
    return predict_pb2.Column(name=c.name, values=list(c.values) * (n // len(c.values)))


def _column(name: str, values: Any) -> predict_pb2.Column:
    if not isinstance(name, str):
        raise Invalid(f"column {name!r}: give a name that is a str")
    alone = isinstance(values, (str, bytes, numbers.Number)) or values is None
    return predict_pb2.Column(name=name, values=_texts(name, [values] if alone else values))


def _texts(name: str, values: Any) -> list[str]:
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
        raise Invalid(f"{name}: {values!r} is no list of values: give one")
    return [_text(name, v) for v in values]


def _text(name: str, value: Value) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise Invalid(f"column {name!r}: {value!r} has no one text: give a str, int or float, or None if it is missing")
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if math.isinf(value):
        raise Invalid(f"column {name!r}: {value} is not finite")
    return "" if math.isnan(value) else repr(float(value))


def _count(top: int) -> int:
    if isinstance(top, bool) or not isinstance(top, numbers.Integral) or not 0 <= top < 1 << 32:
        raise Invalid(f"top of {top!r}: give a whole number from 0")
    return int(top)
