"""What a pod is asked and answers, by the server of a test."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from fakes import FakePod

import freshet
import freshet.aio
from freshet._proto import predict_pb2


def sent(columns: Any) -> dict[str, list[str]]:
    return {c.name: list(c.values) for c in columns}


def test_events_are_scored_by_column(fake_pod: FakePod) -> None:
    with freshet.Pod(fake_pod.address) as pod:
        p = pod.predict({"n": ["1", "2", "3"], "hour": "7"})
        assert (p.values.dtype, p.scores.dtype) == (np.float64, np.float32)
        assert p.values.tolist() == [0.1, 0.2, 0.3]
        assert p.scores.tolist() == [1, 2, 3]
        assert not p.errors
        assert p.served == freshet.Served(3, "live", (5, 6), 1700, 2.5)
        assert sent(fake_pod.last.columns) == {"n": ["1", "2", "3"], "hour": ["7"]}


def test_events_are_scored_one_by_one(fake_pod: FakePod) -> None:
    with freshet.Pod(fake_pod.address) as pod:
        assert pod.predict([{"n": 1, "uid": "a"}, {"n": 2.5, "price": None}]).values.tolist() == [0.1, 0.25]
        assert sent(fake_pod.last.columns) == {"n": ["1", "2.5"], "uid": ["a", ""], "price": ["", ""]}


def test_values_are_sent_as_their_text(fake_pod: FakePod) -> None:
    with freshet.Pod(fake_pod.address) as pod:
        pod.predict({"n": np.array([1, 2]), "f": np.array([0.5, np.nan], np.float64), "t": ("ü", None), "s": np.float32(0.25), "m": None})
        assert sent(fake_pod.last.columns) == {"n": ["1", "2"], "f": ["0.5", ""], "t": ["ü", ""], "s": ["0.25"], "m": [""]}


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ({}, "no events"),
        ([], "no events"),
        ({"n": []}, "no events"),
        ({"n": ["1", "2"], "m": ["1", "2", "3"]}, "one for each event, or one for all"),
        ({"n": ["1", "2"], "m": []}, "one for each event, or one for all"),
        ({"n": [True]}, "no one text"),
        ({"n": [b"1"]}, "no one text"),
        ({"n": b"1"}, "no one text"),
        ({"n": [float("inf")]}, "not finite"),
        ({"n": [["1"]]}, "no one text"),
        ({"n": {"1": 2}}, "no list"),
        ({"n": 5j}, "no one text"),
        ([{"n": object()}], "no one text"),
        ([1, 2], "give {column: values}"),
        ("n", "give {column: values}"),
        ({7: ["1"]}, "give a name"),
    ],
)
def test_events_that_cannot_be_meant_are_refused(fake_pod: FakePod, events: Any, says: str) -> None:
    with freshet.Pod(fake_pod.address) as pod, pytest.raises(freshet.Invalid, match=says):
        pod.predict(events)


def test_an_event_that_cannot_be_used_is_no_number(fake_pod: FakePod) -> None:
    with freshet.Pod(fake_pod.address) as pod:
        p = pod.predict({"n": ["1", "x", "3"]})
        assert np.isnan(p.values).tolist() == [False, True, False]
        assert np.isnan(p.scores).tolist() == [False, True, False]
        assert p.errors == {1: "column n: 'x' is no number"}


def test_candidates_are_ranked(fake_pod: FakePod) -> None:
    with freshet.Pod(fake_pod.address) as pod:
        r = pod.rank(
            {"uid": 7},
            {"n": [3, 9, 5], "shop": "a"},
            top=2,
            filters=[
                freshet.Filter("stock", at_least=1),
                freshet.Filter("kind", is_in=["a", 2]),
                freshet.Filter("n", not_in=[4]),
                freshet.Filter("n", at_most=0),
            ],
            routing_key="u7",
        )
        assert r.candidates.tolist() == [1, 2]
        assert r.scores.tolist() == [9, 5]
        assert r.values.tolist() == [0.9, 0.5]
        assert (r.filtered, r.unusable, r.served.version) == (1, 2, 3)
        last = fake_pod.last
        assert (sent(last.context), last.top) == ({"uid": ["7"]}, 2)
        assert sent(last.candidates) == {"n": ["3", "9", "5"], "shop": ["a", "a", "a"]}, "a candidate has one value of each column"
        tests = [(f.column, f.WhichOneof("test")) for f in last.filters]
        assert tests == [("stock", "at_least"), ("kind", "in"), ("n", "not_in"), ("n", "at_most")]
        assert list(getattr(last.filters[1], "in").values) == ["a", "2"]
        assert fake_pod.metadata["freshet-key"] == "u7"
        assert pod.rank({}, [{"n": 1}]).candidates.tolist() == [0]
        for candidates in ({}, []):
            with pytest.raises(freshet.Invalid, match="no candidates"):
                pod.rank({}, candidates)
        with pytest.raises(freshet.Invalid, match="with 2 tests"):
            pod.rank({}, {"n": [1]}, filters=[freshet.Filter("n", at_least=1, at_most=2)])
        with pytest.raises(freshet.Invalid, match="top"):
            pod.rank({}, {"n": [1]}, top=-1)


def test_items_are_retrieved(fake_pod: FakePod) -> None:
    with freshet.Pod(fake_pod.address) as pod:
        r = pod.retrieve({"uid": "7"}, top=3, not_in=["i9"])
        assert r.items == ("i0", "i1", "i2")
        assert r.scores.tolist() == [9, 8, 7]
        assert (sent(fake_pod.last.context), list(fake_pod.last.not_in)) == ({"uid": ["7"]}, ["i9"])
        pod.retrieve(vector=np.array([0.5, -1]))
        assert (list(fake_pod.last.vector), fake_pod.last.top) == ([0.5, -1], 10)
        for query in ({}, {"context": {"uid": 1}, "vector": [1.0]}):
            with pytest.raises(freshet.Invalid, match="give one of them"):
                pod.retrieve(**query)
        for vector in ([float("nan")], [[1.0]], ["a"], 3.0):
            with pytest.raises(freshet.Invalid, match="one dimension"):
                pod.retrieve(vector=vector)


def test_a_prediction_is_explained(fake_pod: FakePod) -> None:
    with freshet.Pod(fake_pod.address) as pod:
        e = pod.explain({"n": 4, "hour": 3})
        assert (e.value, e.score, e.error, e.features) == (0.4, 4, "", {"n": 0.5, "hour": 0.5})
        e = pod.explain({"n": "x"})
        assert np.isnan(e.value)
        assert "no number" in e.error


def test_an_answer_about_other_events_is_corrupt(fake_pod: FakePod) -> None:
    with freshet.Pod(fake_pod.address) as pod:
        fake_pod.answer = lambda request: predict_pb2.PredictResponse(predictions=[predict_pb2.Prediction()])
        with pytest.raises(freshet.Corrupt, match="1 predictions of 2 events"):
            pod.predict({"n": [1, 2]})
        fake_pod.answer = lambda request: predict_pb2.RankResponse(ranked=[predict_pb2.Ranked(candidate=2)])
        with pytest.raises(freshet.Corrupt, match="names others"):
            pod.rank({}, {"n": [1, 2]})
        fake_pod.answer = lambda request: b"\xff"
        with pytest.raises(freshet.Corrupt, match="no PredictResponse"):
            pod.predict({"n": [1, 2]})


def test_a_pod_that_is_not_there_is_unavailable() -> None:
    with freshet.Pod("127.0.0.1:1") as pod, pytest.raises(freshet.Unavailable, match=r"127.0.0.1:1: not reached"):
        pod.predict({"n": [1]})


def test_a_closed_pod_says_so(fake_pod: FakePod) -> None:
    pod = freshet.Pod(fake_pod.address)
    pod.close()
    with pytest.raises(freshet.Closed, match="connect again"):
        pod.predict({"n": [1]})


def test_metadata_that_grpc_cannot_carry_is_refused(fake_pod: FakePod) -> None:
    with freshet.Pod(fake_pod.address) as pod, pytest.raises(freshet.Invalid, match="printable ASCII"):
        pod.predict({"n": [1]}, routing_key="ü")


def test_asyncio_asks_the_same(fake_pod: FakePod) -> None:
    async def main() -> None:
        async with freshet.aio.Pod(fake_pod.address) as pod:
            p, r, t, e = await asyncio.gather(
                pod.predict({"n": [1]}), pod.rank({}, {"n": [1]}), pod.retrieve({"uid": 1}), pod.explain({"n": 1})
            )
            assert (p.values.tolist(), r.candidates.tolist(), len(t.items), e.value) == ([0.1], [0], 10, 0.1)

    asyncio.run(main())
