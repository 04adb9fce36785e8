"""Readers of what others write, fed with what a fuzzer makes of it: specifications, calls of the C interface, logs.

The two in C++ are programs of libFuzzer (``tests/fuzz``), built with Clang, AddressSanitizer and UBSan, and run for a
minute each.
An input that fails is printed; put it into a file and give its name to the program, to see it fail again.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cenote import trace
from cpp_build import build_cpp_tree, run_build

SECONDS = 60
SETTINGS = ("-DCMAKE_CXX_COMPILER=clang++", "-DCENOTE_CHECK=1", "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1")
SPECIFICATIONS = (
    "statistics | pool:initial=1GiB,max=50% | cuda",
    'tracking:stacks=1 | logging:file="a,b.csv" | async:release_threshold=0',
    "binning:min=8,max=10 | fixed_size:block=1MiB | managed",
    "thread_safe | limiting:limit=1KiB | aligned:alignment=512 | prefetch | arena | pinned",
)
LOG = b"""Thread,Time,Action,Pointer,Size,Stream
4711,12:05:59.123456,allocate,0x7f5c00000000,1024,0x1
4711,12:05:59:123999,free,0x7f5c00000000,1024,1
4712,23:59:59.999999,allocate failure,(nil),18446744073709551615,0
4711,00:00:00.000001,allocate,0x7f5c00000000,512,0x1
"""


@pytest.mark.long
@pytest.mark.parametrize("fuzzer", ["specification_fuzzer", "c_abi_fuzzer"])
def test_no_input_breaks_what_a_fuzzer_looks_at(fuzzer: str, tmp_path: Path) -> None:
    if shutil.which("clang++") is None:
        pytest.skip("needs Clang: apt-get install clang")
    tree = build_cpp_tree("cpp-fuzzers", "fuzzer-no-link,address,undefined", (fuzzer,), *SETTINGS)
    if not tree.has_googletest:
        pytest.skip("needs GoogleTest: apt-get install libgtest-dev, or conda install -c conda-forge gtest")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    if fuzzer == "specification_fuzzer":
        for number, text in enumerate(SPECIFICATIONS):
            (corpus / str(number)).write_text(text)
    done = run_build(
        *(
            str(tree.folder / fuzzer),
            f"-max_total_time={SECONDS}",
            "-timeout=30",
            "-rss_limit_mb=4096",
            "-max_len=4096",
        ),
        *(f"-artifact_prefix={tmp_path}/", "-print_final_stats=1", str(corpus)),
    )
    failing = [f"{path.name}: {path.read_bytes()!r}" for path in tmp_path.iterdir() if path.is_file()]
    assert done.returncode == 0, "\n".join([*failing, done.stderr[-6000:]])


@st.composite
def damaged_logs(draw: st.DrawFn) -> bytes:
    """A good log with some of its bytes replaced, taken out or put in, or cut off."""
    log = bytearray(LOG)
    for _ in range(draw(st.integers(0, 8))):
        begin = draw(st.integers(0, len(log)))
        end = draw(st.integers(begin, min(begin + 40, len(log))))
        log[begin:end] = draw(st.one_of(st.binary(max_size=8), st.sampled_from([b",", b"\n", b"0x", b"9" * 30, b"\0"])))
    return bytes(log[: draw(st.integers(0, len(log)))]) if draw(st.booleans()) else bytes(log)


def read(log: bytes, folder: Path) -> None:
    """Reads a log, or says what is wrong with it: nothing else may happen."""
    path = folder / "log.csv"
    path.write_bytes(log)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trace.TraceWarning)
        try:
            events = trace.read(path)
        except trace.TraceError as error:
            assert str(path) in str(error)
            return
    assert events.dtype == trace.DTYPE
    assert (events["bytes"] >= 0).all()
    trace.bytes_in_use(events)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=damaged_logs())
def test_damaged_log_is_read_or_refused(log: bytes, tmp_path: Path) -> None:
    read(log, tmp_path)


@pytest.mark.long
@settings(max_examples=50_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=damaged_logs())
def test_any_of_many_damaged_logs_is_read_or_refused(log: bytes, tmp_path: Path) -> None:
    read(log, tmp_path)
