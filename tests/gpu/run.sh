#!/usr/bin/env bash
# Builds cenote on a machine with a GPU, without network, and runs everything that needs a device
# or can use one.
#
#   tests/gpu/run.sh OUTDIR      leaves build.log, tests.log, tests.xml and gpu-tests.md (the summary) in OUTDIR
#
# Needs Python with the build requirements of pyproject.toml, PyTorch, CuPy, numba-cuda and pytest; for the examples in
# C++, CMake, and nvcc for those that are CUDA's.
set -u
export PATH="$PATH:/usr/local/cuda/bin"
out=${1:?usage: tests/gpu/run.sh OUTDIR}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
cd "$here/../.." || exit 1

echo "building …"
if ! python3 -m pip install --no-build-isolation --no-deps --no-index . >"$out/build.log" 2>&1; then
  tail -40 "$out/build.log"
  exit 1
fi
# From another folder, so that the installed package is what is tested.
cd "$out" || exit 1
CENOTE_TEST_ON_GPU=1 python3 -m pytest "$here" "$here/../conformance" --rootdir "$here" -c /dev/null --import-mode=importlib -p no:cacheprovider -q -ra \
  --junitxml="$out/tests.xml" >"$out/tests.log" 2>&1
status=$?
tail -60 "$out/tests.log"
python3 "$here/summarize.py" "$out/tests.xml" | tee "$out/gpu-tests.md"
exit $status
