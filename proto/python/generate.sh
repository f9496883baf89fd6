#!/usr/bin/env bash
# Writes the Python code of the messages to DIR, or to where the package has it.
#
#   proto/python/generate.sh [DIR]
#
# PYTHON is an interpreter that has grpcio-tools 1.62.3: of its protoc, which is of
# protobuf 4, the code runs under protobuf 5 and all that came later. What newer ones
# write runs under two major versions only.
set -euo pipefail
out="$(realpath -m "${1:-$(dirname "$0")/freshet/_proto}")"
cd "$(dirname "$0")"
made="$(mktemp -d)"
trap 'rm -rf "$made"' EXIT

"${PYTHON:-python3}" -m grpc_tools.protoc -I .. --python_out="$made" --pyi_out="$made" \
  freshet/admin/v1/admin.proto freshet/predict/v1/predict.proto freshet/ps/v1/ps.proto
mkdir -p "$out"
for file in "$made"/freshet/*/v1/*_pb2.py*; do
  # The files lie in the package, so that nothing else is called freshet.
  sed -E "s/'freshet\.[a-z]+\.v1\.([a-z]+_pb2)'/'freshet._proto.\1'/" "$file" >"$out/$(basename "$file")"
done
