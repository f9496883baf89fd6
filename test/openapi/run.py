#!/usr/bin/env python3
"""Lets schemathesis, a client that knows nothing but a pod's openapi.json, look for what the pod does not bear.

It starts a pod, runs all checks against it and ends with schemathesis's exit code. Schemathesis is installed
with pip into bin/ if it is not there.
"""

import argparse
import contextlib
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv

VERSION = "4.32.5"
ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "test" / "openapi"
TOOLS = ROOT / "bin" / ".openapi"


def install():
    """Installs schemathesis once for each version."""
    done = TOOLS / f"installed-{VERSION}"
    if not done.exists():
        print(f"installing schemathesis {VERSION} into {TOOLS.relative_to(ROOT)} ...", flush=True)
        venv.create(TOOLS, with_pip=True, clear=True)
        subprocess.run([TOOLS / "bin" / "pip", "install", "--quiet", f"schemathesis=={VERSION}"], check=True)
        done.touch()


@contextlib.contextmanager
def fake(program):
    """A pod whose model is made up: see test/openapi/pod."""
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as pod:
        try:
            address = pod.stdout.readline().strip()
            if not address:
                sys.exit("the pod has printed no address")
            yield address
        finally:
            pod.stdin.close()
    if pod.returncode:
        sys.exit(f"the pod has ended with {pod.returncode}")


# What the examples of openapi.json are about.
SPEC = """
model: clicks
stream: {format: csv, partitions: 4, partition_by: uid, identifiers: [uid]}
label: {column: clicked}
features:
  - {name: user, column: uid}
  - {name: hour, column: hour}
  - {name: item, column: item}
  - {name: price, column: price, log: 1.5}
network: {kind: fm, factors: 4}
"""
KNOWN = {"OPENAPI_MODEL": "clicks", "OPENAPI_COLUMNS": "uid,item,hour,price", "OPENAPI_CONTEXT": "uid,hour", "OPENAPI_WIDTH": "4"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, process, done):
    late = time.monotonic() + 60
    while not done():
        if process.poll() is not None or time.monotonic() > late:
            sys.exit(f"{what} does not come up; see its log above")
        time.sleep(0.1)


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


@contextlib.contextmanager
def real(program):
    """A pod of a cluster that has learned a small stream."""
    program = pathlib.Path(program).resolve()
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as running:
        home, rng = pathlib.Path(home), random.Random(1)
        rows = [f"u{rng.randrange(500)},i{rng.randrange(100)},{rng.randrange(24)},{rng.randrange(1000)},{rng.randrange(2)}" for _ in range(5000)]
        (home / "clicks.csv").write_text("uid,item,hour,price,clicked\n" + "\n".join(rows) + "\n")
        (home / "items.csv").write_text("item,price\n" + "".join(f"i{i},{i * 7}\n" for i in range(100)))
        (home / "clicks.yaml").write_text(SPEC)

        def start(*args):
            process = subprocess.Popen([program, *args])
            running.callback(process.wait, 30)
            running.callback(process.terminate)
            return process

        coordinator, web = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        up = start("up", home / "clicks.yaml", "--stream", f"file://{home}/clicks.csv", "--dir", home / "state", "--listen", coordinator, "--shards", "16")
        until("the cluster", up, lambda: subprocess.run([program, "status", "--coordinator", coordinator], capture_output=True).returncode == 0)
        pod = start(
            "serve", "--coordinator", coordinator, "--secret-file", home / "state" / "secret", "--listen", f"127.0.0.1:{free_port()}", "--http", web,
            "--items", f"file://{home}/items.csv", "--item-name", "item",
        )
        until("the pod", pod, lambda: answers(f"http://{web}/readyz"))
        yield web


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--pod", help="program that prints its address and serves until its input ends")
    which.add_argument("--serve", help="freshet: a real pod of a real cluster")
    parser.add_argument("--examples", type=int, default=200, help="requests made up for each operation and kind (default 200)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of what is made up (default: another one each time)")
    settings = parser.parse_args()
    install()
    with real(settings.serve) if settings.serve else fake(settings.pod) as address:
        print(f"pod at {address}, seed {settings.seed}", flush=True)
        run = subprocess.run(
            [
                TOOLS / "bin" / "schemathesis", "--config-file", HERE / "schemathesis.toml",
                "run", f"http://{address}/openapi.json", "--checks", "all",
                "--max-examples", str(settings.examples), "--seed", str(settings.seed),
                "--report", "json", "--report-json-path", ROOT / "bin" / "openapi-report.json",
            ],
            cwd=ROOT / "bin",  # where it leaves what it keeps between runs
            env={**os.environ, **KNOWN, "SCHEMATHESIS_HOOKS": str(HERE / "hooks.py"), "PYTHONDONTWRITEBYTECODE": "1"},
        )
    sys.exit(run.returncode)


if __name__ == "__main__":
    main()
