"""Look-ups: rows, and how fresh they are. Nothing here does I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, Mapping, NamedTuple, Optional, Tuple

from . import _rows
from ._errors import Corrupt, Invalid, decoded
from ._key import Keys
from ._model import Model, Table
from ._proto import ps_pb2
from ._rows import Part, Rows, Wanted


class Boundary(NamedTuple):
    """A place in the history of a shard. Of two, the greater comes later."""

    fence: int
    seq: int


class Freshness(NamedTuple):
    """How fresh the rows of a shard are.

    applied: by partition of the stream, the first offset that is not in. event_time: the
    largest that is in, in milliseconds since 1970; 0 if unknown. age_ms: milliseconds
    since something was last applied.
    """

    boundary: Boundary
    applied: Tuple[int, ...]
    event_time: int
    age_ms: float


@dataclass(frozen=True)
class Lookup:
    """Rows, and how fresh they are.

    rows: (len(keys), width), to be read only. freshness: by shard, of each that a key is
    in, the oldest that rows were read at. seen: by shard, what was seen by now; given to
    the next look-up, that one does not go back behind this one.
    """

    rows: Rows
    freshness: Mapping[int, Freshness]
    seen: Mapping[int, Boundary]


class Looking:
    """One look-up: its requests, and what has come."""

    def __init__(
        self, model: Model, table: Table, keys: Keys, encoding: str, seen: Mapping[int, Tuple[int, int]], max_age_ms: Optional[float]
    ) -> None:
        if max_age_ms is not None and not 0 < max_age_ms < math.inf:
            raise Invalid(f"max_age_ms of {max_age_ms}: give a number above 0, or none for any age")
        if encoding not in _rows.ENCODINGS:
            raise Invalid(f"encoding {encoding!r}: want one of {', '.join(_rows.ENCODINGS)}")
        self._model, self._table, self._encoding, self._age = model, table, encoding, max_age_ms or 0.0
        self._before = {shard: Boundary(*boundary) for shard, boundary in seen.items()}
        self._seen = dict(self._before)
        self._freshness: Dict[int, Freshness] = {}
        self.wanted = Wanted(keys, table)

    def ask(self, part: Part) -> bytes:
        """Returns the request for some of the keys."""
        request = ps_pb2.LookupRequest(
            model=self._model.name,
            layout=self._model.hash,
            shards=part.shards,
            tables=[part.table_keys(self._table)],
            encoding=f"ENCODING_{self._encoding.upper()}",
            max_age_ms=self._age,
        )
        if self._before:  # all shards have one then; of those not seen yet, the beginning
            boundaries = (self._before.get(s, Boundary(0, 0)) for s in part.shards)
            request.seen.extend(ps_pb2.Boundary(fence=b.fence, seq=b.seq) for b in boundaries)
        return request.SerializeToString()

    def take(self, part: Part, reply: bytes) -> None:
        """Takes in the answer to it."""
        shards = [decoded(ps_pb2.ShardFreshness, bytes(v)) for number, v in _rows.fields(reply) if number == 2]
        if len(shards) != len(part.shards):
            raise Corrupt(f"the freshness of {len(shards)} shards, asked about {len(part.shards)}")
        self.wanted.put(part.at, _rows.decode(_rows.values(reply), self._encoding, self._table, len(part.at)))
        for shard, f in zip(part.shards, shards):
            boundary = Boundary(f.boundary.fence, f.boundary.seq)
            if shard not in self._freshness or boundary < self._freshness[shard].boundary:
                self._freshness[shard] = Freshness(boundary, tuple(f.applied), f.event_time, f.age_ms)
            self._seen[shard] = max(self._seen.get(shard, boundary), boundary)

    def found(self) -> Lookup:
        """Returns what has come, when all has."""
        return Lookup(self.wanted.rows(), self._freshness, self._seen)
