#!/usr/bin/env python3
"""Lets schemathesis, a client that knows nothing but a pod's openapi.json, look for what the pod does not bear.

It starts a pod, runs all checks against it and ends with schemathesis's exit code. Schemathesis is installed
with pip into bin/ if it is not there.
"""

import argparse
import os
import pathlib
import random
import subprocess
import sys
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pod", required=True, help="program that prints its address and serves until its input ends")
    parser.add_argument("--examples", type=int, default=200, help="requests made up for each operation and kind (default 200)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of what is made up (default: another one each time)")
    settings = parser.parse_args()
    install()
    with subprocess.Popen([settings.pod], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as pod:
        try:
            address = pod.stdout.readline().strip()
            if not address:
                sys.exit("the pod has printed no address")
            print(f"pod at {address}, seed {settings.seed}", flush=True)
            run = subprocess.run(
                [
                    TOOLS / "bin" / "schemathesis", "--config-file", HERE / "schemathesis.toml",
                    "run", f"http://{address}/openapi.json", "--checks", "all",
                    "--max-examples", str(settings.examples), "--seed", str(settings.seed),
                    "--report", "json", "--report-json-path", ROOT / "bin" / "openapi-report.json",
                ],
                cwd=ROOT / "bin",  # where it leaves what it keeps between runs
                env={**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "hooks.py"), "PYTHONDONTWRITEBYTECODE": "1"},
            )
        finally:
            pod.stdin.close()
    sys.exit(run.returncode or pod.returncode)


if __name__ == "__main__":
    main()
