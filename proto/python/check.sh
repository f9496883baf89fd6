#!/usr/bin/env bash
# Checks the package in environments of its own (see install.sh): types, style, that its
# generated code is up to date, and its tests, those against a real cluster among them.
#
#   proto/python/check.sh PROGRAM [pytest's arguments ...]
#
# PROGRAM is bin/freshet.
set -euo pipefail
program="$(realpath "$1")"
shift
cd "$(dirname "$0")/../.."
tools=bin/python
proto/python/install.sh
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
