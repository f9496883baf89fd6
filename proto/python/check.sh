#!/usr/bin/env bash
# Installs the package into an environment of its own and checks it: types, style, that its
# generated code is up to date, and its tests, those against a real cluster among them.
#
#   proto/python/check.sh PROGRAM [pytest's arguments ...]
#
# PROGRAM is bin/freshet. The environment is made once, in bin/python.
set -euo pipefail
program="$(realpath "$1")"
shift
cd "$(dirname "$0")/../.."
tools=bin/python
if [ ! -e "$tools/made" ] || [ proto/python/pyproject.toml -nt "$tools/made" ]; then
  echo "making $tools ..."
  python3 -m venv --clear "$tools"
  "$tools/bin/pip" install --quiet -e 'proto/python[test]'
  touch "$tools/made"
fi
cd proto/python
../../$tools/bin/ruff check .
../../$tools/bin/mypy
FRESHET_BIN="$program" ../../$tools/bin/pytest "$@"
