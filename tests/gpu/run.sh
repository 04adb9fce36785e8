#!/usr/bin/env bash
# Builds cenote on a machine with a GPU, without network, and runs everything that needs a device
# or can use one.
#
#   tests/gpu/run.sh OUTDIR      leaves logs, reports (*.xml) and gpu-tests.md (the summary) in OUTDIR
#
# Needs Python with the build requirements of pyproject.toml, PyTorch, CuPy, numba-cuda and pytest; for the C++ suites,
# CMake, Ninja and GoogleTest, its library or its sources; for the examples in C++, nvcc where they are CUDA's.
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
# The suites in C++ for any device, which CI runs on the simulated one: of the driver itself, and the conformance suites,
# with both kinds of default stream. Those for two devices skip themselves where there is one. They are built while
# Python's tests run.
(
  cmake -S core -B "$out/cpp" -G Ninja -DCENOTE_TESTS=ON -DCENOTE_CHECK=2 &&
    cmake --build "$out/cpp" --target driver_on_device conformance conformance_per_thread
) >"$out/cpp.log" 2>&1 &
suites=$!

# From another folder, so that the installed package is what is tested.
cd "$out" || exit 1
# PyTorch's full allocator, which many tests need: once, and not by each of them.
python3 -m cenote build torch >torch.log 2>&1 || tail -3 torch.log

options=(--rootdir "$here" -c /dev/null --import-mode=importlib -p no:cacheprovider -W ignore::pytest.PytestUnknownMarkWarning -v -ra)
workers=()
if python3 -c "import xdist" 2>/dev/null; then
  # Each test is a process of its own, and most of its time is imports.
  workers=(-n "$(($(nproc) < 14 ? $(nproc) : 14))" --dist loadgroup)
fi
if python3 -c "import pytest_timeout" 2>/dev/null; then
  options+=(--timeout=120)
fi
reports=()
status=0
run_tests() {  # NAME OPTION…
  local name=$1
  shift
  CENOTE_TEST_ON_GPU=1 python3 -m pytest "$here" "$here/../conformance" "${options[@]}" "$@" --junitxml="$out/$name.xml" \
    >"$out/$name.log" 2>&1
  local ended=$?
  tail -40 "$out/$name.log"
  [[ $ended == 0 ]] || status=1
  [[ -s $out/$name.xml ]] && reports+=("$out/$name.xml")
}
run_tests tests -m "not alone" "${workers[@]}"
run_tests alone -m alone  # at the end, one at a time: they look at what the device has left, or are timed

if ! wait "$suites"; then
  if grep -q "GTest was not found" "$out/cpp.log"; then
    echo "GoogleTest is missing: the C++ suites were NOT run"
  else
    tail -40 "$out/cpp.log"
    status=1
  fi
else
  for program in driver_on_device conformance conformance_per_thread; do
    for suite in $("$out/cpp/$program" --gtest_list_tests | sed -n 's/^\([^ ]*\)\.$/\1/p'); do  # each in a process
      report=$out/$program.${suite//\//_}
      timeout 300 "$out/cpp/$program" --gtest_filter="$suite.*" --gtest_brief=1 --gtest_output="xml:$report.xml" \
        >"$report.log" 2>&1
      ended=$?
      echo "$program, $suite: exit status $ended"
      if [[ $ended != 0 ]]; then
        tail -40 "$report.log"
        status=1
      fi
      if [[ ! -s $report.xml ]]; then  # it crashed, or took too long
        printf '<testsuite><testcase name="runs_to_its_end" classname="%s" time="0"><failure/></testcase></testsuite>\n' \
          "$suite" >"$report.xml"
      fi
      reports+=("$report.xml")
    done
  done
fi
python3 "$here/summarize.py" "${reports[@]}" | tee "$out/gpu-tests.md"
exit $status
