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
# protoc of protobuf 4, which does not go with what the package needs: see generate.sh.
if [ ! -e "$tools/protoc/made" ]; then
  python3 -m venv --clear "$tools/protoc"
  "$tools/protoc/bin/pip" install --quiet grpcio-tools==1.62.3 'setuptools<70'
  touch "$tools/protoc/made"
fi
rm -rf "$tools/generated"
PYTHON="$PWD/$tools/protoc/bin/python" proto/python/generate.sh "$tools/generated"
for file in "$tools"/generated/*; do
  diff -q "$file" "proto/python/freshet/_proto/$(basename "$file")" || {
    echo "generated code is not up to date: run proto/python/generate.sh" >&2
    exit 1
  }
done

cd proto/python
../../$tools/bin/ruff check .
../../$tools/bin/mypy
FRESHET_BIN="$program" ../../$tools/bin/pytest "$@"
