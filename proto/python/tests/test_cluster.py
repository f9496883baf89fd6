"""Pulls and look-ups of servers that refuse, hang, move and lie."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from typing import Any, Callable

import grpc
import numpy as np
import pytest
from fakes import LAYOUT, NOT_OWNER, SHARDS, WIDTH, Fake, Refused, expected

import freshet
import freshet.aio
from freshet._proto import ps_pb2

KEYS = np.random.default_rng(1).integers(0, 2**64, 500, dtype=np.uint64)


def times(n: int, error: Exception) -> Callable[[Any, Any], None]:
    """Refuses so many times, then no more."""
    left = iter(range(n))

    def refuse(request: Any, context: Any) -> None:
        if next(left, None) is not None:
            raise error

    return refuse


def always(error: Exception) -> Callable[[Any, Any], None]:
    def refuse(request: Any, context: Any) -> None:
        raise error

    return refuse


def hang(request: Any, context: grpc.ServicerContext) -> None:
    """Answers nothing until the caller is gone."""
    gone = threading.Event()
    if context.add_callback(gone.set):  # else the caller is gone already
        gone.wait()


def test_rows_of_all_nodes_come_in_the_order_of_the_keys(fake: Fake) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        doubled = np.concatenate([KEYS, KEYS[::-1]])
        np.testing.assert_array_equal(cluster.pull("shop", "factors", doubled), expected(doubled))
        np.testing.assert_array_equal(cluster.pull("shop", "linear", KEYS), expected(KEYS, 1))
        np.testing.assert_array_equal(cluster.pull("shop", "factors", [int(KEYS[0])]), expected(KEYS[:1]))
        assert cluster.pull("shop", "factors", KEYS).dtype == np.float32
        assert all(node.pulls > 0 for node in fake.nodes)
        assert fake.models == 1, "a model that is known is not asked for again"


def test_no_keys_have_no_rows(fake: Fake) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        assert cluster.pull("shop", "factors", []).shape == (0, WIDTH)
        assert cluster.lookup("shop", "factors", []).rows.shape == (0, WIDTH)


def test_a_large_pull_is_cut_and_put_together(fake: Fake) -> None:
    keys = np.random.default_rng(2).integers(0, 2**64, 300_000, dtype=np.uint64)
    with freshet.connect(fake.coordinator.address, timeout=60) as cluster:
        np.testing.assert_array_equal(cluster.pull("shop", "factors", keys), expected(keys))
    assert sum(node.pulls for node in fake.nodes) >= 300_000 * 24 / (256 << 10)


def test_any_address_is_enough_as_long_as_one_answers(fake: Fake) -> None:
    with freshet.connect("127.0.0.1:1", fake.nodes[1].address, fake.coordinator.address) as cluster:
        np.testing.assert_array_equal(cluster.pull("shop", "factors", KEYS), expected(KEYS))


def test_a_pod_that_knows_only_nodes_reads_by_a_layout_it_is_given(fake: Fake) -> None:
    node = fake.nodes[0].address
    for layout in (LAYOUT, {"shop": LAYOUT}):
        with freshet.connect(node, layout=layout) as cluster:
            np.testing.assert_array_equal(cluster.pull("shop", "factors", KEYS), expected(KEYS))
    with freshet.connect(node) as cluster, pytest.raises(freshet.Invalid, match="connect to a coordinator, or give connect a layout"):
        cluster.pull("shop", "factors", KEYS)
    assert fake.models == 0


def test_a_model_says_what_to_read_by(fake: Fake) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        m = cluster.model()
        assert (m.name, m.version, m.layout, m.spec, m.stream, m.partitions) == ("shop", 2, LAYOUT, b"model: shop", "file:1", 8)
        assert [(t.name, t.width) for t in m.tables] == [("linear", 1), ("factors", WIDTH)]
        cluster.pull("shop", "linear", [1])
        assert fake.nodes[0].last.layout == m.hash


def test_what_does_not_exist_is_named(fake: Fake) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        with pytest.raises(freshet.UnknownModel, match="no model shoe") as caught:
            cluster.pull("shoe", "linear", KEYS)
        assert caught.value.code is grpc.StatusCode.NOT_FOUND
        with pytest.raises(freshet.Invalid, match="no table 'fact'; it has linear, factors"):
            cluster.pull("shop", "fact", KEYS)
        with pytest.raises(freshet.Invalid, match="encoding 'int4'"):
            cluster.lookup("shop", "linear", KEYS, encoding="int4")
        with pytest.raises(freshet.Invalid, match="max_age_ms"):
            cluster.lookup("shop", "linear", KEYS, max_age_ms=float("nan"))
        with pytest.raises(freshet.Invalid, match="timeout"):
            cluster.pull("shop", "linear", KEYS, timeout=-1)


@pytest.mark.parametrize("addresses", [(), ("host",), (7400,), ("a:1", "b")])
def test_addresses_that_cannot_be_meant_are_refused(addresses: Any) -> None:
    with pytest.raises(freshet.Invalid, match="host:port"):
        freshet.connect(*addresses)


def test_nobody_at_an_address_is_unavailable_and_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(freshet.Unavailable, match=r"no shard map from 127.0.0.1:1 within 0.3 s: 127.0.0.1:1: not reached"):
        freshet.connect("127.0.0.1:1", timeout=0.3)
    assert threading.active_count() == before


def test_a_shard_that_moves_is_asked_for_at_its_new_owner(fake: Fake) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        moved = []

        def refuse(request: Any, context: Any) -> None:
            if not moved:
                moved.append(True)
                fake.route(lambda s: 1, fence=2)
            raise NOT_OWNER

        fake.nodes[0].refuse = refuse
        np.testing.assert_array_equal(cluster.pull("shop", "factors", KEYS), expected(KEYS))


@pytest.mark.parametrize(
    "trouble",
    [
        NOT_OWNER,
        Refused(grpc.StatusCode.UNAVAILABLE, "NO_OWNER"),
        Refused(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
    ],
    ids=lambda t: t.reason,
)
def test_what_passes_is_asked_for_again_without_a_newer_map(fake: Fake, trouble: Refused) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        fake.nodes[0].refuse = times(3, trouble)
        np.testing.assert_array_equal(cluster.pull("shop", "factors", KEYS), expected(KEYS))


def test_only_what_failed_is_asked_for_again(fake: Fake) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        fake.nodes[0].refuse = times(1, NOT_OWNER)
        cluster.pull("shop", "factors", KEYS)
        assert [node.pulls for node in fake.nodes] == [2, 1]


def test_what_does_not_pass_is_told_when_the_time_is_up(fake: Fake) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        fake.nodes[0].refuse = always(Refused(grpc.StatusCode.FAILED_PRECONDITION, "NOT_OWNER", "shard 2 is not mine"))
        begun = time.monotonic()
        with pytest.raises(freshet.NotOwner, match=r"given up after 0.4 s: 127.0.0.1:\d+: shard 2 is not mine"):
            cluster.pull("shop", "factors", KEYS, timeout=0.4)
        assert 0.3 < time.monotonic() - begun < 3
        fake.nodes[0].refuse = hang
        with pytest.raises(freshet.DeadlineExceeded):
            cluster.pull("shop", "factors", KEYS, timeout=0.4)
        fake.nodes[0].refuse = always(NOT_OWNER)
        fake.route(lambda s: None if s == 2 else 1)
        with pytest.raises(freshet.NoOwner, match="shard 2 has no owner"):
            cluster.pull("shop", "factors", KEYS, timeout=0.4)


def test_shards_without_an_owner_are_waited_for(fake: Fake) -> None:
    fake.route(lambda s: None)
    with freshet.connect(fake.coordinator.address) as cluster:
        late = threading.Timer(0.2, lambda: fake.route(lambda s: s % 2))
        late.start()
        np.testing.assert_array_equal(cluster.pull("shop", "factors", KEYS), expected(KEYS))
        late.join()


def test_a_node_that_is_gone_is_asked_no_more(fake: Fake) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        cluster.pull("shop", "factors", KEYS)
        fake.nodes[0].stop()
        fake.route(lambda s: 1, fence=2)
        np.testing.assert_array_equal(cluster.pull("shop", "factors", KEYS), expected(KEYS))


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID", freshet.Invalid),
        (grpc.StatusCode.INVALID_ARGUMENT, "TOO_LARGE", freshet.TooLarge),
        (grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL", freshet.UnknownModel),
        (grpc.StatusCode.DATA_LOSS, "CORRUPT", freshet.Corrupt),
        (grpc.StatusCode.INTERNAL, "INTERNAL", freshet.FreshetError),
    ],
)
def test_what_can_never_succeed_is_raised_at_once(fake: Fake, code: Any, reason: str, error: type[freshet.FreshetError]) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        fake.nodes[1].refuse = always(Refused(code, reason, "so it is"))
        with pytest.raises(error, match=f"{fake.nodes[1].address}: so it is") as caught:
            cluster.pull("shop", "factors", KEYS)
        assert (caught.value.reason, caught.value.code) == (reason, code)
        assert fake.nodes[1].pulls == 1


def test_a_model_with_a_newer_layout_is_read_by_it(fake: Fake) -> None:
    mismatch = Refused(grpc.StatusCode.FAILED_PRECONDITION, "MODEL_MISMATCH", "another layout")
    with freshet.connect(fake.coordinator.address) as cluster:
        cluster.pull("shop", "factors", KEYS)
        fake.layout = LAYOUT.replace(b'"seed":1', b'"seed":2')
        newer = freshet.Model("shop", fake.layout).hash

        def refuse(request: Any, context: Any) -> None:
            if request.layout != newer:
                raise mismatch

        fake.nodes[0].refuse = fake.nodes[1].refuse = refuse
        np.testing.assert_array_equal(cluster.pull("shop", "factors", KEYS), expected(KEYS))
        fake.nodes[0].refuse = always(mismatch)
        with pytest.raises(freshet.ModelMismatch, match="another layout"):
            cluster.pull("shop", "factors", KEYS)
    with freshet.connect(fake.coordinator.address, layout=LAYOUT) as cluster, pytest.raises(freshet.ModelMismatch):
        cluster.pull("shop", "factors", KEYS)


@pytest.mark.parametrize(
    "reply",
    [
        b"\xff\xff",
        ps_pb2.PullResponse(values=[b"short"]).SerializeToString(),
        ps_pb2.PullResponse(values=[]).SerializeToString() or b"\x18\x01",
    ],
    ids=["no message", "too few rows", "no rows"],
)
def test_a_reply_that_lies_is_corrupt(fake: Fake, reply: bytes) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        fake.nodes[0].refuse = lambda request, context: reply
        with pytest.raises(freshet.Corrupt):
            cluster.pull("shop", "factors", KEYS)
        with pytest.raises(freshet.Corrupt):
            cluster.lookup("shop", "factors", KEYS)


def test_a_lookup_says_how_fresh_its_rows_are(fake: Fake) -> None:
    with freshet.connect(fake.coordinator.address, identity="pod 7") as cluster:
        found = cluster.lookup("shop", "factors", KEYS, max_age_ms=2000)
        np.testing.assert_array_equal(found.rows, expected(KEYS))
        assert sorted(found.freshness) == list(range(SHARDS))
        assert found.freshness[3] == freshet.Freshness(freshet.Boundary(1, 103), (3, 7), 9, 1.5)
        assert found.seen == {s: (1, 100 + s) for s in range(SHARDS)}
        last = fake.nodes[0].last
        assert (last.max_age_ms, len(last.seen), fake.nodes[0].metadata["freshet-identity"]) == (2000, 0, "pod 7")

        one = int(KEYS[0])
        again = cluster.lookup("shop", "factors", [one], seen={one >> 61: (1, 5)})
        assert again.seen == {one >> 61: (1, 100 + (one >> 61))}, "what was seen grows, and never less"
        cluster.lookup("shop", "factors", KEYS, seen=again.seen)
        node = fake.nodes[(one >> 61) % 2]
        assert [(b.fence, b.seq) for b in node.last.seen] == [tuple(again.seen.get(s, (0, 0))) for s in node.last.shards]


def test_a_lookup_keeps_what_was_seen_of_other_shards(fake: Fake) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        found = cluster.lookup("shop", "factors", [1], seen={5: (3, 9)})
        assert found.seen == {0: (1, 100), 5: (3, 9)}
        assert list(found.freshness) == [0]


def test_a_lookup_that_is_refused_says_what_to_do(fake: Fake) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        fake.nodes[0].refuse = always(Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMITED", "slower", wait=0.25))
        with pytest.raises(freshet.Limited, match="slower") as limited:
            cluster.lookup("shop", "factors", KEYS)
        assert limited.value.wait == 0.25
        fake.nodes[0].refuse = always(Refused(grpc.StatusCode.FAILED_PRECONDITION, "BEHIND", "shard 2 is behind"))
        with pytest.raises(freshet.Behind, match="shard 2 is behind"):
            cluster.lookup("shop", "factors", KEYS, max_age_ms=1)


def test_what_is_behind_a_newer_owner_is_asked_for_again(fake: Fake) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        fake.nodes[0].refuse = times(1, Refused(grpc.StatusCode.FAILED_PRECONDITION, "BEHIND"))
        assert cluster.lookup("shop", "factors", [1], seen={0: (2, 0)}).rows.shape == (1, WIDTH)


def test_rows_under_an_older_fence_than_the_map_has_are_not_taken(fake: Fake) -> None:
    fake.route(lambda s: s % 2, fence=2)  # the nodes say 1
    with freshet.connect(fake.coordinator.address) as cluster, pytest.raises(freshet.NotOwner, match="under fence 1, it is 2 now"):
        cluster.lookup("shop", "factors", KEYS, timeout=0.2)


def test_a_closed_client_says_so(fake: Fake) -> None:
    before = threading.active_count()
    cluster = freshet.connect(fake.coordinator.address)
    cluster.close()
    cluster.close()
    with pytest.raises(freshet.Closed, match="connect again"):
        cluster.pull("shop", "factors", KEYS)
    assert not [t for t in threading.enumerate() if t.name == "freshet"]
    assert threading.active_count() <= before + 1  # gRPC keeps a thread of its own


def test_closing_ends_what_waits(fake: Fake) -> None:
    cluster = freshet.connect(fake.coordinator.address, timeout=60)
    asked = threading.Event()

    def refuse(request: Any, context: Any) -> None:
        asked.set()
        hang(request, context)

    fake.nodes[0].refuse = refuse
    errors: list[Exception] = []

    def pull() -> None:
        try:
            cluster.pull("shop", "factors", KEYS)
        except freshet.Closed as error:
            errors.append(error)

    threads = [threading.Thread(target=pull) for _ in range(3)]
    for t in threads:
        t.start()
    asked.wait()
    cluster.close()
    for t in threads:
        t.join()
    assert len(errors) == 3


def test_threads_share_a_client(fake: Fake) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        wrong: list[int] = []

        def pull(seed: int) -> None:
            keys = np.random.default_rng(seed).integers(0, 2**64, 200, dtype=np.uint64)
            for _ in range(20):
                if not np.array_equal(cluster.pull("shop", "factors", keys), expected(keys)):
                    wrong.append(seed)

        threads = [threading.Thread(target=pull, args=(i,)) for i in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not wrong


def test_an_interrupt_ends_a_pull(fake: Fake) -> None:
    with freshet.connect(fake.coordinator.address, timeout=60) as cluster:
        ended = threading.Event()

        def refuse(request: Any, context: grpc.ServicerContext) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            hang(request, context)
            ended.set()

        fake.nodes[0].refuse = refuse
        with pytest.raises(KeyboardInterrupt):
            cluster.pull("shop", "factors", [1])
        assert ended.wait(10), "the node is told that nobody waits"


def in_child(cluster: freshet.Cluster, told: Any) -> None:
    try:
        cluster.pull("shop", "factors", [1])
    except freshet.Closed as error:
        told.send(str(error))
    cluster.close()


def test_a_client_from_before_a_fork_says_so(fake: Fake) -> None:
    with freshet.connect(fake.coordinator.address) as cluster:
        mine, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=in_child, args=(cluster, theirs))
        child.start()
        assert mine.poll(20)
        assert mine.recv() == "the client was made before a fork: connect in each process"
        child.kill()  # gRPC's own exit handlers do not know of forks
        child.join()
        np.testing.assert_array_equal(cluster.pull("shop", "factors", KEYS), expected(KEYS))


def test_asyncio_pulls_and_looks_up_at_the_same_time(fake: Fake) -> None:
    async def main() -> None:
        async with await freshet.aio.connect(fake.coordinator.address) as cluster:
            rows, found, m = await asyncio.gather(
                cluster.pull("shop", "factors", KEYS), cluster.lookup("shop", "linear", KEYS), cluster.model("shop")
            )
            np.testing.assert_array_equal(rows, expected(KEYS))
            np.testing.assert_array_equal(found.rows, expected(KEYS, 1))
            assert m.name == "shop"
        with pytest.raises(freshet.Closed):
            await cluster.pull("shop", "factors", KEYS)

    asyncio.run(main())


def test_cancelling_a_pull_ends_its_calls(fake: Fake) -> None:
    async def main() -> None:
        asked, ended = threading.Event(), threading.Event()

        def refuse(request: Any, context: Any) -> None:
            asked.set()
            hang(request, context)
            ended.set()

        fake.nodes[0].refuse = refuse
        async with await freshet.aio.connect(fake.coordinator.address, timeout=60) as cluster:
            pulling = asyncio.create_task(cluster.pull("shop", "factors", [1]))
            await asyncio.to_thread(asked.wait)
            pulling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pulling
            assert await asyncio.to_thread(ended.wait, 10)
            fake.nodes[0].refuse = lambda request, context: None
            assert (await cluster.pull("shop", "factors", [1])).shape == (1, WIDTH)

    asyncio.run(main())


def test_a_node_that_goes_while_it_is_asked_is_no_cancellation(fake: Fake) -> None:
    async def main() -> None:
        asked = threading.Event()

        def refuse(request: Any, context: Any) -> None:
            asked.set()
            hang(request, context)

        fake.nodes[0].refuse = refuse
        async with await freshet.aio.connect(fake.coordinator.address, timeout=60) as cluster:
            pulling = asyncio.create_task(cluster.pull("shop", "factors", KEYS))
            await asyncio.to_thread(asked.wait)
            gone, fake.nodes[0] = fake.nodes[0], fake.nodes[1]
            fake.route(lambda s: 1, fence=2)  # of node 0 there is no address any more
            np.testing.assert_array_equal(await pulling, expected(KEYS))
            fake.nodes[0] = gone

    asyncio.run(main())
