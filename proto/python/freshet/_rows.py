"""Rows as they travel: which keys are asked for where, and what the answers are.

Nothing here does I/O; the clients of both kinds share it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, Callable, NamedTuple

import numpy as np
import numpy.typing as npt

from ._errors import Corrupt
from ._key import Keys
from ._model import Table
from ._proto import ps_pb2
from ._routes import Routes

Rows = npt.NDArray[Any]
Places = npt.NDArray[np.intp]

# Bytes of keys and rows that are asked for at once. Answers of 128 to 512 KiB are the
# fastest: smaller ones cost more for each row, larger ones do not overlap.
CHUNK_BYTES = 256 << 10

ENCODINGS = ("plain", "float16", "bfloat16", "int8")  # ps.Encoding


class Part(NamedTuple):
    """Some of the wanted keys, all served by one node. at are their places in Wanted.keys;
    counts are how many are of each of the shards, fences what the shard map says of these."""

    address: str
    at: Places
    keys: Keys
    shards: list[int]
    counts: list[int]
    fences: list[int]

    def table_keys(self, table: Table) -> ps_pb2.TableKeys:
        """Returns the message that asks for them."""
        return ps_pb2.TableKeys(table=table.number, counts=self.counts, keys=self.keys.tobytes())


class Wanted:
    """The keys of one read, and the rows that have come.

    keys: ascending, so that they are grouped by shard, and without duplicates.
    """

    def __init__(self, keys: Keys, table: Table) -> None:
        self._table = table
        self._order: Places | None = None  # the caller's places of keys, if they are not as he gave them
        self._number: Places | None = None  # by the caller's place the place in keys, if he gave duplicates
        self._rows: Rows | None = None
        if not bool((keys[1:] > keys[:-1]).all()):
            order = np.argsort(keys)
            given, keys = len(keys), keys[order]
            first = np.concatenate(([True], keys[1:] != keys[:-1]))
            if first.all():
                self._order = order
            else:
                keys = keys[first]
                self._number = np.empty(given, np.intp)
                self._number[order] = np.cumsum(first) - 1
        self.keys = keys

    def put(self, at: Places, rows: Rows) -> None:
        """Takes in the rows of the keys at these places."""
        if self._rows is None:
            if self._order is None and len(rows) == len(self.keys):
                self._rows = rows  # all of them in their order: they stay where the answer is
                return
            self._rows = np.empty((len(self.keys), self._table.width), self._table.dtype)
        self._rows[at if self._order is None else self._order[at]] = rows

    def rows(self) -> Rows:
        """Returns the rows in the order of the keys as they were given, to be read only."""
        rows = self._rows
        if rows is None:
            rows = np.empty((0, self._table.width), self._table.dtype)
        elif self._number is not None:
            rows = rows[self._number]
        rows.flags.writeable = False
        return rows

    def parts(self, routes: Routes, at: Places | None) -> tuple[list[Part], Places]:
        """Cuts the keys at these places (None: all) by node, and into chunks.

        Returns the parts, of all nodes in turn, and the places whose shard has no owner.
        """
        at = np.arange(len(self.keys), dtype=np.intp) if at is None else at
        owners = routes.owners[routes.shards(self.keys[at])]
        rows = max(1, CHUNK_BYTES // (8 + self._table.row_bytes))
        by_node = [list(self._chunks(routes, address, at[owners == i], rows)) for i, address in enumerate(routes.addresses)]
        return [p for turn in zip_longest(*by_node) for p in turn if p is not None], at[owners < 0]

    def _chunks(self, routes: Routes, address: str, at: Places, rows: int) -> Iterator[Part]:
        for begin in range(0, len(at), rows):
            chunk = at[begin : begin + rows]
            keys = self.keys[chunk]
            of = routes.shards(keys)
            starts = np.flatnonzero(np.diff(of, prepend=-1))
            counts = np.diff(starts, append=len(keys)).tolist()
            shards = of[starts].tolist()
            yield Part(address, chunk, keys, shards, counts, [routes.fences[s] for s in shards])


def fields(message: bytes) -> Iterator[tuple[int, memoryview]]:
    """Returns the fields of a message that are bytes, with their numbers, and copies nothing.

    The classes of protobuf copy bytes twice.
    """
    view, at = memoryview(message), 0
    while at < len(view):
        tag, at = _varint(view, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(view, at)
            continue
        if kind == 2:
            size, at = _varint(view, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise Corrupt(f"a reply with a field of kind {kind}")
        if at + size > len(view):
            raise Corrupt(f"a reply that ends after {len(view)} bytes, {at + size} were announced")
        if kind == 2:
            yield tag >> 3, view[at : at + size]
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(view) and shift < 70:
        byte = view[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise Corrupt(f"a reply whose number at byte {at} does not end")


def values(reply: bytes) -> bytes | memoryview:
    """Returns the first field of a reply: the values of the one table that was asked for."""
    return next((v for number, v in fields(reply) if number == 1), b"")


def plain(values: bytes | memoryview, table: Table, count: int) -> Rows:
    """Returns so many rows of a table, (count, width), where they are."""
    if len(values) != count * table.row_bytes:
        raise Corrupt(f"{len(values)} bytes for {count} rows of {table.row_bytes} bytes")
    return np.frombuffer(values, table.dtype).reshape(count, table.width)


def decode(values: bytes | memoryview, how: str, table: Table, count: int) -> Rows:
    """Returns so many encoded rows of a table, (count, width), as ps/quant decodes them.

    A weight that is not finite is Corrupt.
    """
    width = table.width
    row_bytes = {"float16": 2 * width, "bfloat16": 2 * width, "int8": 4 + width}.get(how, table.row_bytes)
    if table.dtype != np.float32:
        return plain(values, table, count)
    if row_bytes >= table.row_bytes:  # it would not become smaller
        rows = plain(values, table, count)
    elif len(values) != count * row_bytes:
        raise Corrupt(f"{len(values)} bytes for {count} rows of {row_bytes} bytes as {how}")
    else:
        rows = _DECODERS[how](np.frombuffer(values, np.uint8).reshape(count, row_bytes))
    if not np.isfinite(rows).all():
        raise Corrupt(f"rows as {how}: a weight is not finite")
    return rows


def _int8(rows: npt.NDArray[np.uint8]) -> Rows:
    weights: Rows = rows[:, 4:].view(np.int8).astype("<f4")
    weights *= rows[:, :4].copy().view("<f4")
    return weights


_DECODERS: dict[str, Callable[[npt.NDArray[np.uint8]], Rows]] = {
    "float16": lambda rows: rows.view("<f2").astype("<f4"),
    "bfloat16": lambda rows: (rows.view("<u2").astype("<u4") << np.uint32(16)).view("<f4"),
    "int8": _int8,
}
