#!/usr/bin/env bash
# Makes the environments that check.sh works in, once, in bin/python: one with the package
# and what its tests need, and one with protoc of protobuf 4, which does not go with it (see
# generate.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=bin/python
if [ ! -e "$tools/made" ] || [ proto/python/pyproject.toml -nt "$tools/made" ]; then
  echo "making $tools ..."
  python3 -m venv --clear "$tools"
  "$tools/bin/pip" install --quiet -e 'proto/python[test]'
  touch "$tools/made"
fi
if [ ! -e "$tools/protoc/made" ]; then
  python3 -m venv --clear "$tools/protoc"
  "$tools/protoc/bin/pip" install --quiet grpcio-tools==1.62.3 'setuptools<70'
  touch "$tools/protoc/made"
fi
