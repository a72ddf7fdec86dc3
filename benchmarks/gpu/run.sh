#!/usr/bin/env bash
# Every figure that needs a GPU, a process for each part: benchmarks/gpu/run.sh [part ...] [--rehearse]
# docs/gpu_battery.md says what the parts are and which variables it reads.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

if [ -n "${EEVE_GPU_WHEELS:-}" ]; then
  # Installed beside the machine's own packages, and looked up after them, so that its PyTorch stays in use.
  extra=$(mktemp -d)
  trap 'rm -rf "$extra"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --target "$extra" "$EEVE_GPU_WHEELS"/*.whl || exit 2
  export EEVE_GPU_EXTRA="$extra"
fi

for each in "$@"; do
  case $each in
    # One process rehearses all parts: most of a tiny part is starting Python.
    --rehearse) "$python" -m benchmarks.gpu "$@"; exit ;;
    -h | --help) exec "$python" -m benchmarks.gpu --help ;;
  esac
done

parts=$("$python" -m benchmarks.gpu --list "$@") || exit 2
status=0
for part in $parts; do
  timeout --kill-after=20 480 "$python" -m benchmarks.gpu "$part"
  code=$?
  [ $code -eq 2 ] && exit 2 # no GPU: no other part will find one
  [ $code -eq 0 ] || { echo "$part ended with status $code; run it again to go on" >&2; status=1; }
done
exit $status
