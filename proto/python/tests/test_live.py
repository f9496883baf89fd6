"""Against a real cluster and a real pod: FRESHET_BIN names the program to run.

What the package says is held against what the program's own commands say."""

from __future__ import annotations

import asyncio
import csv
import json
import math
import os
import random
import socket
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freshet
import freshet.aio

FRESHET = os.environ.get("FRESHET_BIN", "")
pytestmark = pytest.mark.skipif(not FRESHET, reason="FRESHET_BIN does not name the program (make python sets it)")

USERS, ITEMS, EVENTS, FACTORS = 2000, 400, 20_000, 16
SPEC = f"""
model: clicks
stream:
  format: csv
  partitions: 4
  partition_by: user
  identifiers: [user]
label: {{column: clicked}}
features:
  - {{name: user, column: user}}
  - {{name: item, column: item}}
  - {{name: price, column: price, log: 1.5}}
network: {{kind: fm, factors: {FACTORS}}}
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def until(what: str, done: Any, seconds: float = 60) -> None:
    late = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < late, f"after {seconds} s not yet: {what}"
        time.sleep(0.05)


@dataclass
class Live:
    """A cluster that has learned all its events, and a pod of it."""

    dir: Path
    coordinator: str
    pod: str

    def command(self, *args: str) -> Any:
        """What a command of the program says."""
        done = subprocess.run(
            [FRESHET, *args, "--coordinator", self.coordinator, "-o", "json"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def learned(self) -> bool:
        done = subprocess.run(
            [FRESHET, "status", "--coordinator", self.coordinator, "-o", "json"], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            return False
        models = json.loads(done.stdout)["models"]
        return bool(models) and sum(p["applied"] for p in models[0]["partitions"]) == EVENTS


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    home = tmp_path_factory.mktemp("live")
    rng = random.Random(1)
    with open(home / "clicks.csv", "w", newline="") as f:
        w = csv.writer(f)
        w.writerow(["user", "item", "price", "clicked"])
        for _ in range(EVENTS):
            user, item = rng.randrange(USERS), rng.randrange(ITEMS)
            w.writerow([f"u{user}", f"i{item}", item * 3 + 1, int(rng.random() < 0.1 + 0.5 * (item % 2))])
    (home / "clicks.yaml").write_text(SPEC)
    ports = [free_port() for _ in range(3)]
    it = Live(home, f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}")
    processes: list[subprocess.Popen[bytes]] = []
    with open(home / "log", "wb") as log:
        try:
            processes.append(
                subprocess.Popen(
                    [FRESHET, "up", str(home / "clicks.yaml"), "--stream", f"file://{home}/clicks.csv", "--dir", str(home / "state"),
                     "--listen", it.coordinator, "--shards", "16"],
                    stdout=log, stderr=log,
                )
            )  # fmt: skip
            until("the events are learned", it.learned)
            processes.append(
                subprocess.Popen(
                    [FRESHET, "serve", "--coordinator", it.coordinator, "--secret-file", str(home / "state" / "secret"),
                     "--listen", it.pod, "--http", f"127.0.0.1:{ports[2]}"],
                    stdout=log, stderr=log,
                )
            )  # fmt: skip
            until("the pod is ready", lambda: is_ready(ports[2]))
            yield it
        finally:
            for p in reversed(processes):
                p.terminate()
                assert p.wait(20) == 0, (home / "log").read_text()[-4000:]


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_an_event_is_scored_as_the_program_scores_it(live: Live) -> None:
    events = [{"user": f"u{i * 7 % (USERS + 100)}", "item": f"i{i % ITEMS}", "price": str(i)} for i in range(50)]
    with open(live.dir / "asked.csv", "w", newline="") as f:
        w = csv.DictWriter(f, ["user", "item", "price"])
        w.writeheader()
        w.writerows(events)
    told = live.command("predict", "--events", f"file://{live.dir}/asked.csv", "--secret-file", str(live.dir / "state" / "secret"))
    want = [one["prediction"] for one in told["predictions"]]

    pod = freshet.Pod(live.pod)  # one event in five lines, as in the README
    answer = pod.predict({"user": ["u7"], "item": ["i1"], "price": ["1"]})
    assert answer.values[0] == pytest.approx(want[1], rel=1e-6)
    assert sum(answer.served.applied) == EVENTS
    all_of_them = pod.predict({name: [e[name] for e in events] for name in ("user", "item", "price")})
    np.testing.assert_allclose(all_of_them.values, want, rtol=1e-6)
    assert max(want) > 0.3 and min(want) < 0.3, "the model has learned nothing"

    best = pod.rank({"user": "u8"}, [{"item": f"i{i}", "price": str(3 * i + 1)} for i in range(20)])
    assert [int(i) % 2 for i in best.candidates[:5]] == [1] * 5
    pod.close()


def test_rows_are_what_the_program_exports(live: Live) -> None:
    rows = live.command("checkpoint")
    assert rows["epoch"] >= 1
    out = live.dir / "export"
    live.command("export", "--format", "jsonl", "--out", str(out))
    exported: dict[str, dict[int, list[float]]] = {"linear": {}, "factors": {}}
    for file in sorted(out.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            if file.stem in exported:
                exported[file.stem][int(row["key"])] = row["weights"]
    assert len(exported["factors"]) > USERS, [f.name for f in out.iterdir()]
    with freshet.connect(live.coordinator) as cluster:
        for table, want in exported.items():
            keys = np.array(list(want), dtype=np.uint64)
            np.testing.assert_array_equal(cluster.pull("clicks", table, keys), np.array(list(want.values()), dtype=np.float32))
        items = freshet.keys("item", [f"i{i}" for i in range(ITEMS)])
        assert all(int(k) in exported["factors"] for k in items), "the package hashes a feature otherwise than the program"
        looked = cluster.lookup("clicks", "factors", items)
        np.testing.assert_array_equal(looked.rows, cluster.pull("clicks", "factors", items))
        small = cluster.lookup("clicks", "factors", items, encoding="int8", seen=looked.seen)
        assert np.abs(small.rows - looked.rows).max() <= np.abs(looked.rows).max() / 254 * 1.01


def test_a_pull_of_4096_rows_is_fast(live: Live) -> None:
    keys = np.random.default_rng(1).integers(0, 2**64, 4096, dtype=np.uint64)
    with freshet.connect(live.coordinator) as cluster:
        rates = []
        for _ in range(7):
            began = time.perf_counter()
            for _ in range(50):
                assert cluster.pull("clicks", "factors", keys).shape == (4096, FACTORS)
            rates.append(50 * len(keys) / (time.perf_counter() - began))
    print(f"\n4,096 rows x {FACTORS}: {statistics.median(rates) / 1e6:.2f} M keys/s ({min(rates) / 1e6:.2f} to {max(rates) / 1e6:.2f})")
    assert statistics.median(rates) > 1e5  # 3 M where nothing else runs; a busy machine is no failure


def test_what_is_wrong_is_said_by_class(live: Live) -> None:
    keys = freshet.keys("item", ["i1"])
    with freshet.connect(live.coordinator) as cluster, freshet.Pod(live.pod) as pod:
        with pytest.raises(freshet.UnknownModel):
            cluster.pull("other", "factors", keys)
        with pytest.raises(freshet.Invalid):
            cluster.pull("clicks", "colours", keys)
        # Ten million keys are asked for in many messages: too much is a matter of the reader's limits.
        many = cluster.lookup("clicks", "linear", np.arange(10_000_000, dtype=np.uint64))
        assert many.rows.shape == (10_000_000, 1)
        with pytest.raises(freshet.DeadlineExceeded):
            cluster.pull("clicks", "factors", keys, timeout=1e-9)
        with pytest.raises(freshet.UnknownModel):
            pod.predict({"user": ["u1"]}, model="other")
        with pytest.raises(freshet.Invalid, match="colour"):
            pod.predict({"colour": ["red"]})
        with pytest.raises(freshet.DeadlineExceeded):
            pod.predict({"user": ["u1"], "item": ["i1"], "price": ["1"]}, timeout=1e-9)
        # A value that is no number is an event that no score is made up for.
        odd = pod.predict({"user": ["u1", "u1"], "item": ["i1", "i1"], "price": ["NaN", "2"]})
        assert not math.isnan(odd.values[1])
        # Nothing of it has disturbed anything.
        assert pod.predict({"user": ["u1"], "item": ["i1"], "price": ["1"]}).values[0] > 0


def test_asyncio_says_the_same(live: Live) -> None:
    keys = freshet.keys("item", [f"i{i}" for i in range(100)])

    async def ask() -> tuple[Any, Any]:
        async with await freshet.aio.connect(live.coordinator) as cluster, freshet.aio.Pod(live.pod) as pod:
            return await asyncio.gather(
                cluster.pull("clicks", "linear", keys), pod.predict({"user": ["u1"], "item": ["i1"], "price": ["1"]})
            )

    rows, answer = asyncio.run(ask())
    with freshet.connect(live.coordinator) as cluster, freshet.Pod(live.pod) as pod:
        np.testing.assert_array_equal(rows, cluster.pull("clicks", "linear", keys))
        assert answer.values[0] == pod.predict({"user": ["u1"], "item": ["i1"], "price": ["1"]}).values[0]
