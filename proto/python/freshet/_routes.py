"""The shard map: which node serves which shard, and where it listens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ._errors import Corrupt, decoded
from ._key import Keys
from ._proto import ps_pb2

_SHARDS_MAX = 1 << 14  # ps.ShardsMax


@dataclass(frozen=True)
class Routes:
    """A shard map at one version.

    owners: by shard, the place of its owner's address in addresses; -1 while it has none.
    fences: by shard, the number of its ownership.
    """

    version: int
    addresses: tuple[str, ...]
    owners: npt.NDArray[np.intp]
    fences: tuple[int, ...]

    def shards(self, keys: Keys) -> npt.NDArray[np.intp]:
        """Returns the shard of each key: its highest bits."""
        return (keys >> np.uint64(65 - len(self.owners).bit_length())).astype(np.intp)


def of_message(reply: bytes) -> Routes:
    """Returns the shard map that a message holds."""
    m = decoded(ps_pb2.ShardMap, reply)
    n = len(m.shards)
    if not 1 <= n <= _SHARDS_MAX or n & (n - 1):
        raise Corrupt(f"a shard map of {n} shards: want a power of two from 1 to {_SHARDS_MAX}")
    place = {node: i for i, node in enumerate(m.addresses)}
    owners = np.fromiter((place.get(s.node, -1) for s in m.shards), np.intp, n)
    return Routes(m.version, tuple(m.addresses.values()), owners, tuple(s.fence for s in m.shards))


NONE = Routes(0, (), np.empty(0, np.intp), ())  # before there is a map
