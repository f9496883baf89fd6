"""Pulls and look-ups: what they ask for, and what they make of the answers. Nothing here
does I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from . import _rows
from ._errors import Behind, Corrupt, FreshetError, Invalid, NotOwner, decoded
from ._key import Keys
from ._model import Model
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
    applied: tuple[int, ...]
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


class Pull:
    """Rows of one table. What is asked of a node is a Part of the keys."""

    method = "/freshet.ps.v1.Parameters/Pull"

    def __init__(self, model: Model, table: str, keys: Keys) -> None:
        self._model, self._table = model, model.table(table)
        self.wanted = Wanted(keys, self._table)

    def ask(self, part: Part) -> bytes:
        """Returns the request."""
        tables = [part.table_keys(self._table)]
        return ps_pb2.PullRequest(model=self._model.name, layout=self._model.hash, shards=part.shards, tables=tables).SerializeToString()

    def take(self, part: Part, reply: bytes) -> None:
        """Takes in the reply."""
        self.wanted.put(part.at, _rows.plain(_rows.values(reply), self._table, len(part.at)))

    def refused(self, part: Part, error: FreshetError) -> FreshetError:
        """Returns what a refusal means."""
        return error


class Look(Pull):
    """Rows of one table with their freshness."""

    method = "/freshet.ps.v1.Lookups/Lookup"

    def __init__(
        self, model: Model, table: str, keys: Keys, encoding: str, seen: Mapping[int, tuple[int, int]], max_age_ms: float | None
    ) -> None:
        super().__init__(model, table, keys)
        if max_age_ms is not None and not 0 < max_age_ms < math.inf:
            raise Invalid(f"max_age_ms of {max_age_ms}: give a number above 0, or none for any age")
        if encoding not in _rows.ENCODINGS:
            raise Invalid(f"encoding {encoding!r}: want one of {', '.join(_rows.ENCODINGS)}")
        self._encoding, self._age = encoding, max_age_ms or 0.0
        self._before = {shard: Boundary(*boundary) for shard, boundary in seen.items()}
        self._seen = dict(self._before)
        self._freshness: dict[int, Freshness] = {}

    def ask(self, part: Part) -> bytes:
        seen = [self._before.get(shard, Boundary(0, 0)) for shard in part.shards] if self._before else []
        return ps_pb2.LookupRequest(
            model=self._model.name,
            layout=self._model.hash,
            shards=part.shards,
            tables=[part.table_keys(self._table)],
            encoding=f"ENCODING_{self._encoding.upper()}",
            seen=[ps_pb2.Boundary(fence=b.fence, seq=b.seq) for b in seen],
            max_age_ms=self._age,
        ).SerializeToString()

    def take(self, part: Part, reply: bytes) -> None:
        shards = [decoded(ps_pb2.ShardFreshness, bytes(v)) for number, v in _rows.fields(reply) if number == 2]
        if len(shards) != len(part.shards):
            raise Corrupt(f"the freshness of {len(shards)} shards, asked about {len(part.shards)}")
        for shard, fence, f in zip(part.shards, part.fences, shards):
            # A node that has not heard that it lost the shard would show what is gone.
            if f.boundary.fence < fence:
                raise NotOwner(f"shard {shard}: rows under fence {f.boundary.fence}, it is {fence} now")
        self.wanted.put(part.at, _rows.decode(_rows.values(reply), self._encoding, self._table, len(part.at)))
        for shard, f in zip(part.shards, shards):
            boundary = Boundary(f.boundary.fence, f.boundary.seq)
            if shard not in self._freshness or boundary < self._freshness[shard].boundary:
                self._freshness[shard] = Freshness(boundary, tuple(f.applied), f.event_time, f.age_ms)
            self._seen[shard] = max(self._seen.get(shard, boundary), boundary)

    def refused(self, part: Part, error: FreshetError) -> FreshetError:
        """Makes what is behind something to ask again for, if the shard has an owner that the
        shard map is not aware of yet."""
        known = zip(part.shards, part.fences)
        if isinstance(error, Behind) and any(self._before[s].fence > fence for s, fence in known if s in self._before):
            return NotOwner(str(error))
        return error

    def found(self) -> Lookup:
        """Returns what was taken, when that is all."""
        return Lookup(self.wanted.rows(), self._freshness, self._seen)
