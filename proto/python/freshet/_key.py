"""Keys of rows, as worker/feature computes them, and masks, as worker/stream/mask does.

Both are in checkpoints and in trained rows: they never change.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any, Union

import numpy as np
import numpy.typing as npt
import xxhash

from ._errors import Invalid

Keys = npt.NDArray[np.uint64]
Text = Union[str, bytes, int]

_BITS = (1 << 64) - 1


def key(feature: str, value: Text = "") -> int:
    """Returns the key of a feature's value.

    The value is text as the stream has it, or the whole number of a bucket or of a part of
    the time. The empty text is a missing value. Where the stream's identifiers are masked,
    it is the identifier's mask. A float is Invalid: it has more than one text.
    """
    return _mix(_seed(feature) ^ xxhash.xxh64_intdigest(_text(value)))


def keys(feature: str, values: Sequence[Text] | npt.NDArray[Any]) -> Keys:
    """Returns the keys of many values of a feature: uint64, (len(values),)."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    hashes = np.fromiter((xxhash.xxh64_intdigest(_text(v)) for v in values), np.uint64, len(values))
    return _mix_all(hashes ^ np.uint64(_seed(feature)))


def cross(feature: str, *crossed: int) -> int:
    """Returns the key of a combination: crossed are the keys of the values, in the order of
    the spec's cross."""
    k = _seed(feature)
    for c in crossed:
        if not 0 <= c <= _BITS:
            raise Invalid(f"cross {feature!r} of {c}: give keys, as freshet.key returns them")
        k = _mix(k ^ int(c))
    return k


def mask(secret: str | bytes, identifier: Text) -> str:
    """Returns what stands for a person's identifier in a stream that masks it: the first 16
    bytes of HMAC-SHA-256 as hexadecimal digits. An empty identifier, which is nobody's,
    stays empty. Without a secret it is Invalid: everybody could compute the mask.
    """
    secret, text = _text(secret), _text(identifier)
    if not secret:
        raise Invalid("identifiers are to be masked, but the secret is empty")
    return hmac.new(secret, text, "sha256").hexdigest()[:32] if text else ""


def _seed(feature: str) -> int:
    return _mix(xxhash.xxh64_intdigest(feature.encode()))


def _text(value: Text) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(int(value)).encode()
    raise Invalid(f"{value!r} has no one text: give a str, bytes or int, as the stream has it")


def _mix(x: int) -> int:
    """ps.Mix: the finalizer of SplitMix64."""
    x = (x + 0x9E3779B97F4A7C15) & _BITS
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _BITS
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _BITS
    return x ^ x >> 31


def _mix_all(x: Keys) -> Keys:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def checked(given: Any) -> Keys:
    """Returns keys that somebody gave as an array, (n,), or says what is wrong with them."""
    a = np.asarray(given)
    if a.size == 0:
        a = a.astype(np.uint64)
    elif a.dtype.kind not in "ui" and isinstance(given, (list, tuple)):
        # Of small and large numbers together numpy makes floats.
        if not all(isinstance(k, (int, np.integer)) and not isinstance(k, bool) for k in given):
            raise Invalid("keys that are not whole numbers: give what freshet.key or freshet.keys returns")
        if not all(0 <= k <= _BITS for k in given):
            raise Invalid("keys are from 0 to 2**64-1")
        a = np.array(given, dtype=np.uint64)
    if a.ndim != 1:
        raise Invalid(f"keys of shape {a.shape}: give one dimension, as keys.reshape(-1) has")
    if a.dtype.kind not in "ui":
        raise Invalid(f"keys of {a.dtype}: give uint64, as freshet.keys returns them")
    if a.dtype.kind == "i" and a.min(initial=0) < 0:
        raise Invalid(f"key {a.min()} is negative; where these are the bits of keys, give keys.view(numpy.uint64)")
    return np.ascontiguousarray(a, dtype="<u8")
