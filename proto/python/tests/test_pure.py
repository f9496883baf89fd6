"""Keys, masks, errors, layouts and rows: what is computed without a cluster."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path

import grpc
import numpy as np
import pytest

import freshet
from freshet import _errors, _key, _model, _routes, _rows
from freshet._proto import ps_pb2

REPOSITORY = Path(__file__).parents[3]
TABLE = _model.Table("factors", 1, 4, np.dtype("<f4"))


def test_keys_are_those_of_the_go_code() -> None:
    lines = [shlex.split(line) for line in (REPOSITORY / "worker/feature/testdata/keys.txt").read_text().splitlines()]
    lines = [line for line in lines if line and line[0] in ("key", "cross")]
    assert len(lines) >= 13
    for kind, name, *args, want in lines:
        if kind == "key":
            assert freshet.key(name, args[0]) == int(want, 16), (name, args)
            assert freshet.keys(name, args).tolist() == [int(want, 16)]
        else:
            assert freshet.cross(name, *(int(a, 16) for a in args)) == int(want, 16), (name, args)


def test_many_keys_are_the_keys_one_by_one() -> None:
    values = ["", "a", "Füße", b"\xff", 17, -3, np.int64(5)]
    assert freshet.keys("f", values).tolist() == [freshet.key("f", v) for v in values]
    assert freshet.keys("f", np.arange(100)).tolist() == [freshet.key("f", str(i)) for i in range(100)]
    assert freshet.keys("f", []).shape == (0,)


@pytest.mark.parametrize("value", [1.5, None, True, ["a"]])
def test_a_value_that_has_no_one_text_has_no_key(value: object) -> None:
    with pytest.raises(freshet.Invalid, match="no one text"):
        freshet.key("f", value)  # type: ignore[arg-type]


def test_a_cross_of_what_is_no_key_is_refused() -> None:
    with pytest.raises(freshet.Invalid, match="give keys"):
        freshet.cross("f", 1 << 64)


def test_masks_are_those_of_the_go_code() -> None:
    assert freshet.mask("a secret of the test", "712") == "9342db947efe8b98785de1c55f8845c8"
    assert freshet.mask(b"a secret of the test", 712) == "9342db947efe8b98785de1c55f8845c8"
    assert freshet.mask("Jefe", "what do ya want for nothing?") == "5bdcc146bf60754e6a042426089575c7"
    assert freshet.mask("a secret", "") == ""
    with pytest.raises(freshet.Invalid, match="secret is empty"):
        freshet.mask("", "712")


def test_every_reason_of_the_servers_has_a_class() -> None:
    go = (REPOSITORY / "ps/wire/errors.go").read_text()
    reasons = re.findall(r'\{ps\.Err\w+, codes\.\w+, "(\w+)"\}', go)
    assert len(reasons) >= 14
    assert list(_errors.CONDITIONS) == reasons
    for reason, condition in _errors.CONDITIONS.items():
        assert getattr(freshet, condition.__name__) is condition
        assert condition.__doc__
        assert condition.reason == reason


def test_a_reason_that_is_not_known_yet_is_kept() -> None:
    error = _errors.of_reason("NEWER", "something", grpc.StatusCode.ABORTED).about("node")
    assert type(error) is freshet.FreshetError
    assert (error.reason, error.code, str(error)) == ("NEWER", grpc.StatusCode.ABORTED, "node: something")


def test_the_hash_of_a_layout_is_that_of_the_go_code() -> None:
    layout = (
        b'{"seed":1,"tables":[{"name":"linear","kind":0,"width":1,"optimizer":{"name":"ftrl","learning_rate":0.1,"beta":1,"l2":0.1},'
        b'"initializer":{"name":"zero"}}]}'
    )
    assert freshet.Model("m", layout).hash == 0xB82DDABF246CAB69  # TestTheLayoutHashSeesEverySetting
    assert freshet.Model("m", layout + b"\n").hash == 0xB82DDABF246CAB69, "a file may end with a line feed"


@pytest.mark.parametrize("layout", [b"", b"{}", b"[1]", b'{"tables":[{"name":"a","kind":9,"width":1}]}', b"\xff"])
def test_a_layout_that_is_none_is_refused(layout: bytes) -> None:
    with pytest.raises(freshet.Invalid, match=r"Model\.layout"):
        freshet.Model("m", layout)


def test_keys_may_be_given_in_any_integer_type() -> None:
    for given in ([1, 2**64 - 1], (1, 2**63), np.array([1, 2], np.int32), np.array([5], np.uint64), range(3)):
        assert _key.checked(given).tolist() == list(given)
        assert _key.checked(given).dtype == np.uint64
    assert _key.checked([]).shape == (0,)
    assert _key.checked(np.arange(6, dtype=np.uint64)[::2]).tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([1.5], "whole numbers"),
        ([float("nan")], "whole numbers"),
        (np.array([1.0]), "give uint64"),
        ([0.5, 2**63], "whole numbers"),
        ([None], "whole numbers"),
        (np.array([True]), "give uint64"),
        ([-1], "negative"),
        ([-1, 2**63], "from 0 to"),
        ([2**64], "from 0 to"),
        (np.array([-5]), r"keys\.view"),
        (["a"], "whole numbers"),
        ("abc", "shape"),
        (7, "shape"),
        (np.zeros((2, 2), np.uint64), r"reshape\(-1\)"),
        (None, "shape"),
        ([[1, 2], [3, 4]], "shape"),
    ],
)
def test_keys_that_cannot_be_meant_are_refused(keys: object, says: str) -> None:
    with pytest.raises(freshet.Invalid, match=says):
        _key.checked(keys)


def routes(shards: int, nodes: int) -> _routes.Routes:
    m = ps_pb2.ShardMap(version=1, addresses={f"n{i}": f"a{i}" for i in range(nodes)})
    m.shards.extend(ps_pb2.ShardOwner(node=f"n{s % nodes}", fence=s) for s in range(shards))
    return _routes.of_message(m.SerializeToString())


def row_of(keys: np.ndarray) -> np.ndarray:
    return (keys[:, None] >> np.arange(0, 64, 16, dtype=np.uint64) & np.uint64(0xFFFF)).astype("<f4")


@pytest.mark.parametrize("shards", [1, 2, 64, 1 << 14])
@pytest.mark.parametrize("nodes", [1, 2, 7])
@pytest.mark.parametrize("distinct", [1, 10, 30_000])
def test_rows_come_in_the_order_of_the_keys(shards: int, nodes: int, distinct: int) -> None:
    random = np.random.default_rng(5)
    some = random.integers(0, 2**64, distinct, dtype=np.uint64)
    for keys in (random.choice(some, 40_000), np.sort(some), some):
        wanted, known = _rows.Wanted(keys, TABLE), routes(shards, nodes)
        parts, homeless = wanted.parts(known, None)
        assert len(homeless) == 0
        for part in parts:
            assert part.shards == sorted(set(part.shards))
            assert sum(part.counts) == len(part.keys) == len(part.at)
            assert part.fences == part.shards
            assert {known.addresses[known.owners[s]] for s in part.shards} == {part.address}
            assert known.shards(part.keys).tolist() == np.repeat(part.shards, part.counts).tolist()
            assert len(part.at) * (8 + TABLE.row_bytes) <= _rows.CHUNK_BYTES
            wanted.put(part.at, row_of(part.keys))
        assert sum(len(p.at) for p in parts) == len(np.unique(keys)), "no key is asked for twice"
        np.testing.assert_array_equal(wanted.rows(), row_of(keys))
        assert not wanted.rows().flags.writeable


def test_one_reply_to_ascending_keys_is_not_copied() -> None:
    keys = np.arange(100, dtype=np.uint64)
    wanted = _rows.Wanted(keys, TABLE)
    (part,), _ = wanted.parts(routes(1, 1), None)
    reply = ps_pb2.PullResponse(values=[row_of(keys).tobytes()]).SerializeToString()
    wanted.put(part.at, _rows.plain(_rows.values(reply), TABLE, 100))
    assert np.shares_memory(wanted.rows(), np.frombuffer(reply, np.uint8))


def test_keys_of_shards_without_an_owner_are_told_apart() -> None:
    m = ps_pb2.ShardMap(version=1, addresses={"a": "x:1"})
    m.shards.extend([ps_pb2.ShardOwner(node="a"), ps_pb2.ShardOwner(node="gone")])
    keys = np.array([1, 1 << 63, 2, (1 << 63) + 1], np.uint64)
    wanted = _rows.Wanted(keys, TABLE)
    parts, homeless = wanted.parts(_routes.of_message(m.SerializeToString()), None)
    assert [p.keys.tolist() for p in parts] == [[1, 2]]
    assert wanted.keys[homeless].tolist() == [1 << 63, (1 << 63) + 1]


@pytest.mark.parametrize("shards", [0, 3, 1 << 15])
def test_a_shard_map_that_cannot_be_is_corrupt(shards: int) -> None:
    m = ps_pb2.ShardMap(version=1, shards=[ps_pb2.ShardOwner()] * shards)
    with pytest.raises(freshet.Corrupt, match="power of two"):
        _routes.of_message(m.SerializeToString())


def weights(rows: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).normal(0, 0.1, (rows, width)).astype("<f4")


def test_half_precision_decodes_to_the_nearest_weights() -> None:
    w = weights(50, 4)
    halves = w.astype("<f2")
    np.testing.assert_array_equal(_rows.decode(halves.tobytes(), "float16", TABLE, 50), halves.astype("<f4"))
    # Halves of which every value is known: the greatest, the least, a negative zero.
    known = np.array([[0x7BFF, 0x0001, 0x8000, 0xC000]], "<u2")
    assert _rows.decode(known.tobytes(), "float16", TABLE, 1).tolist() == [[65504, 2**-24, -0.0, -2]]


def test_bfloat16_decodes_to_the_upper_half_of_a_float() -> None:
    w = weights(50, 4)
    upper = (w.view("<u4") >> 16).astype("<u2")
    got = _rows.decode(upper.tobytes(), "bfloat16", TABLE, 50)
    np.testing.assert_array_equal(got.view("<u4"), upper.astype("<u4") << 16)
    np.testing.assert_allclose(got, w, rtol=2**-7)


def test_int8_decodes_to_the_scale_times_the_byte() -> None:
    w = weights(50, 4)
    scales = (np.abs(w).max(axis=1) / np.float32(127)).astype("<f4")
    levels = np.rint(w / scales[:, None]).astype(np.int8)
    encoded = np.concatenate([scales.reshape(-1, 1).view(np.uint8).reshape(50, 4), levels.view(np.uint8)], axis=1)
    got = _rows.decode(encoded.tobytes(), "int8", TABLE, 50)
    assert (np.abs(got - w) <= np.abs(w).max(axis=1, keepdims=True) / 253).all()  # the bound of ps/quant
    assert _rows.decode(bytes(8), "int8", TABLE, 1).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("encoding", _rows.ENCODINGS)
def test_rows_that_would_not_become_smaller_travel_plain(encoding: str) -> None:
    narrow = _model.Table("linear", 0, 1, np.dtype("<f4"))
    if encoding in ("plain", "int8"):  # a scale and a byte are more than a float
        assert _rows.decode(weights(3, 1).tobytes(), encoding, narrow, 3).shape == (3, 1)
    counts = _model.Table("audit", 0, 2, np.dtype("<u8"))
    assert _rows.decode(np.array([1, 2**63], "<u8").tobytes(), encoding, counts, 1).tolist() == [[1, 2**63]]


def test_weights_that_are_not_finite_are_corrupt() -> None:
    for encoding, row in (
        ("plain", np.array([1, 2, np.nan, 0], "<f4").tobytes()),
        ("float16", np.array([1, 2, np.inf, 0], "<f2").tobytes()),
        ("bfloat16", np.array([0, 0, 0x7F80, 0], "<u2").tobytes()),
        ("int8", np.array([np.inf], "<f4").tobytes() + bytes([1, 1, 1, 1])),
    ):
        with pytest.raises(freshet.Corrupt, match="not finite"):
            _rows.decode(row, encoding, TABLE, 1)


@pytest.mark.parametrize("encoding", _rows.ENCODINGS)
def test_rows_of_another_length_are_corrupt(encoding: str) -> None:
    with pytest.raises(freshet.Corrupt, match="bytes for 2 rows"):
        _rows.decode(bytes(17), encoding, TABLE, 2)


def test_no_reply_however_torn_is_more_than_corrupt() -> None:
    whole = ps_pb2.LookupResponse(values=[bytes(300)], shards=[ps_pb2.ShardFreshness(age_ms=1, applied=[1, 2])] * 3).SerializeToString()
    assert [len(v) for n, v in _rows.fields(whole) if n == 1] == [300]
    random = np.random.default_rng(9)
    for _ in range(3000):
        torn = bytearray(whole[: random.integers(0, len(whole) + 1)])
        for _ in range(random.integers(0, 3)):
            if torn:
                torn[random.integers(0, len(torn))] = random.integers(0, 256)
        with contextlib.suppress(freshet.Corrupt):
            list(_rows.fields(bytes(torn)))
    # Fields that are not known yet are passed over, of whatever kind.
    assert [n for n, _ in _rows.fields(b"\x18\x05\x25abcd\x29abcdefgh\x0a\x01x")] == [1]
