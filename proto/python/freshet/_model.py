"""What a client knows of a model: its tables, and the hash of the layout it reads by."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._errors import Corrupt, FreshetError, Invalid, decoded
from ._proto import admin_pb2

_KINDS = ("<f4", "<f8", "<u8")  # float32, float64, uint64: ps.Kind


@dataclass(frozen=True)
class Table:
    """Rows of one width. number is its place in the layout, dtype that of an element."""

    name: str
    number: int
    width: int
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """The bytes of a row of weights."""
        return self.width * self.dtype.itemsize


@dataclass(frozen=True)
class Model:
    """A model as a coordinator stores it.

    layout: its layout as JSON, byte for byte as it is hashed: give it to connect on
    machines that reach nodes only. spec: the spec as its author wrote it. stream: the
    identity of the stream that it learns from, which has so many partitions. version
    counts the specs that were applied, from 1. Of a model that is known by its layout
    only, spec, stream, partitions and version are empty or 0.
    """

    name: str
    layout: bytes
    version: int = 0
    spec: bytes = field(default=b"", repr=False)
    stream: str = ""
    partitions: int = 0
    hash: int = field(init=False)
    tables: tuple[Table, ...] = field(init=False)

    def __post_init__(self) -> None:
        layout = self.layout.strip()
        digest = hashlib.sha256(layout).digest()
        try:
            tables = tuple(
                Table(t["name"], i, int(t["width"]), np.dtype(_KINDS[t["kind"]])) for i, t in enumerate(json.loads(layout)["tables"])
            )
        except (ValueError, KeyError, TypeError, IndexError):
            raise Invalid(f"the layout of model {self.name!r} is not the JSON of a layout, as Model.layout is") from None
        object.__setattr__(self, "hash", int.from_bytes(digest[:8], "little"))
        object.__setattr__(self, "tables", tables)

    def table(self, name: str) -> Table:
        """Returns a table by its name; one that there is not is Invalid."""
        for t in self.tables:
            if t.name == name:
                return t
        raise Invalid(f"model {self.name!r} has no table {name!r}; it has {', '.join(t.name for t in self.tables)}")


def of_message(reply: bytes) -> Model:
    """Returns the model of a coordinator's answer."""
    m = decoded(admin_pb2.Model, reply)
    try:
        return Model(m.name, m.layout, m.version, m.spec, m.stream, m.partitions)
    except FreshetError as error:
        raise Corrupt(str(error)) from None
