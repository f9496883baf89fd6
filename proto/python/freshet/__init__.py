"""Reads the parameters of a Freshet cluster, and asks its inference pods for predictions.

    with freshet.connect("127.0.0.1:7400") as cluster:
        rows = cluster.pull("shop", "linear", freshet.keys("product", ["p1", "p2"]))

    with freshet.Pod("127.0.0.1:7500") as pod:
        print(pod.predict({"uid": ["1"], "hour": ["3"]}).values)

freshet.aio has the same for asyncio. Errors are FreshetError and its classes.
"""

from ._blocking import Cluster, Pod, connect
from ._errors import (
    Behind,
    Closed,
    Conflict,
    Corrupt,
    DeadlineExceeded,
    FreshetError,
    Invalid,
    KeysUnknown,
    Limited,
    ModelMismatch,
    NoOwner,
    NotOwner,
    OutOfMemory,
    Replaced,
    TooLarge,
    Unavailable,
    UnknownModel,
)
from ._key import cross, key, keys, mask
from ._model import Model, Table
from ._questions import Explanation, Filter, Predictions, Ranking, Retrieved, Served
from ._reading import Boundary, Freshness, Lookup

__all__ = [
    "Behind",
    "Boundary",
    "Closed",
    "Cluster",
    "Conflict",
    "Corrupt",
    "DeadlineExceeded",
    "Explanation",
    "Filter",
    "FreshetError",
    "Freshness",
    "Invalid",
    "KeysUnknown",
    "Limited",
    "Lookup",
    "Model",
    "ModelMismatch",
    "NoOwner",
    "NotOwner",
    "OutOfMemory",
    "Pod",
    "Predictions",
    "Ranking",
    "Replaced",
    "Retrieved",
    "Served",
    "Table",
    "TooLarge",
    "Unavailable",
    "UnknownModel",
    "connect",
    "cross",
    "key",
    "keys",
    "mask",
]
