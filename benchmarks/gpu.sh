#!/usr/bin/env bash
# The GPU backend on a machine with an NVIDIA GPU, in under 8 minutes: operators and whole models for correctness, then timings; ends with
# a verdict. Exit code 0: everything right, 1: something wrong, 2: no usable GPU.
#     benchmarks/gpu.sh                      makes an environment of its own; needs Python 3.11 or later, pip and the network
#     PYTHON=/path/to/python benchmarks/gpu.sh   uses one that has CuPy, pytest and OpenInfer's dependencies
set -euo pipefail
cd "$(dirname "$0")/.."
limit_s=470
SECONDS=0
if [ -z "${PYTHON:-}" ]; then
    environment=$(mktemp -d)
    trap 'rm -rf "$environment"' EXIT
    python3 -m venv "$environment"
    PYTHON=$environment/bin/python
    timeout 200 "$PYTHON" -m pip install --quiet --disable-pip-version-check '.[gpu]' pytest
else
    # The tree as it is: the folders that install below the package are mapped into it.
    links=$(mktemp -d)
    trap 'rm -rf "$links"' EXIT
    cp -r openinfer "$links/openinfer"
    for folder in workloads profiles tuner reports; do ln -s "$PWD/$folder" "$links/openinfer/$folder"; done
    export PYTHONPATH=$links${PYTHONPATH:+:$PYTHONPATH}
fi
export OPENINFER_CACHE=${OPENINFER_CACHE:-$(mktemp -d)}
if command -v nvidia-smi >/dev/null; then nvidia-smi --query-gpu=name,driver_version,memory.total,memory.free --format=csv,noheader; fi
root=$PWD
cd /  # the installed package, not the folder of its name
status=0
timeout $((limit_s - SECONDS)) "$PYTHON" "$root/benchmarks/gpu.py" --seconds $((limit_s - SECONDS - 30)) "$@" || status=$?
[ "$status" != 124 ] || echo "verdict: WRONG: stopped after $limit_s s"
exit "$status"
