"""Reading recorded allocations: both forms, and every way in which a file can be damaged."""

from __future__ import annotations

import bz2
import gzip
import lzma
import warnings
from pathlib import Path

import numpy as np
import pytest

from cenote import trace
from cenote.logs.trace import Action, TraceError, TraceWarning

HEADER = "Thread,Time,Action,Pointer,Size,Stream\n"
ALLOCATE = "7,00:00:01:000002,allocate,0x7f0000000000,1024,0\n"
FREE = "7,00:00:01:000005,free,0x7f0000000000,1024,0\n"


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(lines))
    return path


def test_recorded_form_is_read(tmp_path: Path) -> None:
    events = trace.read(write(tmp_path / "run.csv", HEADER, ALLOCATE, FREE))
    assert events.dtype == trace.DTYPE
    assert events["time_us"].tolist() == [1_000_002, 1_000_005]
    assert events["action"].tolist() == [Action.ALLOCATE, Action.FREE]
    assert events["pointer"].tolist() == [0x7F0000000000] * 2
    assert events["bytes"].tolist() == [1024, 1024]
    assert events["thread"].tolist() == [7, 7]


def test_form_of_rmm_is_read(tmp_path: Path) -> None:
    failure = "4711,23:59:59.000001,allocate failure,(nil),4096,0x1f\n"
    (event,) = trace.read(write(tmp_path / "rmm.csv", HEADER, failure))
    assert event["time_us"] == 86_399_000_001
    assert event["action"] == Action.FAILURE
    assert (event["pointer"], event["bytes"], event["stream"]) == (0, 4096, 0x1F)


def test_streams_are_decimal_or_hexadecimal(tmp_path: Path) -> None:
    decimal = ALLOCATE.replace(",0\n", ",191936144\n")
    hexadecimal = FREE.replace(",0\n", ",0xb70bb90\n")
    events = trace.read(write(tmp_path / "run.csv", HEADER, decimal, hexadecimal))
    assert events["stream"].tolist() == [191936144, 0xB70BB90]


def test_time_does_not_run_backwards_over_midnight(tmp_path: Path) -> None:
    late, early = ALLOCATE.replace("00:00:01:0", "23:59:59.9"), FREE.replace("00:00:01:", "00:00:00.")
    events = trace.read(write(tmp_path / "night.csv", HEADER, late, early))
    assert np.diff(events["time_us"]).tolist() == [100_003]


def test_compressed_file_reads_as_the_plain_one(tmp_path: Path) -> None:
    plain = write(tmp_path / "run.csv", HEADER, ALLOCATE, FREE)
    packed = tmp_path / "run.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert np.array_equal(trace.read(plain), trace.read(packed))


def test_header_alone_is_an_empty_trace(tmp_path: Path) -> None:
    events = trace.read(write(tmp_path / "run.csv", HEADER))
    assert len(events) == 0
    assert len(trace.bytes_in_use(events)) == 0


def test_example_is_the_run_that_its_readme_describes() -> None:
    events = trace.read(trace.example())
    assert (events["action"] == Action.ALLOCATE).sum() == 13_098
    assert trace.bytes_in_use(events).max() == 8_014_843_968
    assert trace.example().with_name("README.md").is_file()


@pytest.mark.parametrize(
    ("lines", "number", "complaint"),
    [
        ((), 1, "empty"),
        (("time,bytes\n",), 1, "header"),
        ((ALLOCATE,), 1, "header"),
        ((HEADER[:20],), 1, "header"),
        ((HEADER, "7" * 2000 + "\n"), 2, "a line of 1024 bytes or more"),
        ((HEADER, ALLOCATE.replace("allocate", "alloc\u00e4te")), 2, "not the text of a trace"),
        ((HEADER, "7,00:00:01:000002,allocate\n"), 2, "6 fields"),
        ((HEADER, "\n"), 2, "6 fields"),
        ((HEADER, ALLOCATE.replace("allocate", "grow")), 2, "'grow' is not an action"),
        ((HEADER, ALLOCATE.replace("1024", "-5")), 2, "'-5' is not a size"),
        ((HEADER, ALLOCATE.replace("1024", "9" * 20)), 2, "is not a size"),
        ((HEADER, ALLOCATE.replace("00:00:01:000002", "12:61:00:000000")), 2, "is not a time"),
        ((HEADER, ALLOCATE.replace("0x7f0000000000", "0xzz")), 2, "'0xzz' is not a pointer"),
        ((HEADER, ALLOCATE.replace("0x7f", "0x7f" * 9)), 2, "is not a pointer"),
        ((HEADER, ALLOCATE.replace(",0\n", ",1_0\n")), 2, "'1_0' is not a stream"),
        ((HEADER, "x" + ALLOCATE), 2, "'x7' is not a thread"),
    ],
)
def test_damage_is_reported_with_file_line_and_reason(
    tmp_path: Path, lines: tuple[str, ...], number: int, complaint: str
) -> None:
    path = write(tmp_path / "bad.csv", *lines)
    with pytest.raises(TraceError) as caught:
        trace.read(path)
    assert f"{path}, line {number}: " in str(caught.value)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", range(1, len(FREE)))
def test_all_but_the_last_line_is_read_where_that_is_cut(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "killed.csv", HEADER, ALLOCATE, FREE[:kept])
    is_whole = kept >= len(FREE) - 1  # only the end of the line may be missing
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        events = trace.read(path)
    assert len(events) == 2 if is_whole else 1
    assert [str(each.message).startswith(f"{path}, line 3: left out") for each in warned] == [True] * (not is_whole)


def test_last_line_needs_no_end(tmp_path: Path) -> None:
    whole = trace.read(write(tmp_path / "run.csv", HEADER, ALLOCATE, FREE))
    assert np.array_equal(trace.read(write(tmp_path / "other.csv", HEADER, ALLOCATE, FREE.rstrip())), whole)


def test_line_that_is_cut_in_the_midst_of_a_trace_is_damage(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="line 2"):
        trace.read(write(tmp_path / "run.csv", HEADER, ALLOCATE[:20] + "\n", FREE))


def test_what_is_whole_of_a_truncated_gzip_is_read(tmp_path: Path) -> None:
    whole, events = trace.example().read_bytes(), trace.read(trace.example())
    for kept in (len(whole) // 2, len(whole) - 4):
        path = tmp_path / f"cut{kept}.csv.gz"
        path.write_bytes(whole[:kept])
        with pytest.warns(TraceWarning, match="cut short"):
            read = trace.read(path)
        assert 10_000 < len(read) <= len(events)
        assert np.array_equal(read, events[: len(read)])
    for kept in (5, 40):
        path = tmp_path / f"cut{kept}.csv.gz"
        path.write_bytes(whole[:kept])
        with pytest.raises(TraceError, match="line 1: damaged gzip data"):
            trace.read(path)


def test_compression_is_seen_by_the_contents_and_not_by_the_name(tmp_path: Path) -> None:
    whole = trace.read(write(tmp_path / "run.csv.gz", HEADER, ALLOCATE, FREE))
    packed = tmp_path / "packed.csv"
    packed.write_bytes(gzip.compress((tmp_path / "run.csv.gz").read_bytes()))
    assert np.array_equal(trace.read(packed), whole)


def test_mark_of_utf_8_and_ends_of_lines_of_other_systems_do_not_matter(tmp_path: Path) -> None:
    whole = trace.read(write(tmp_path / "run.csv", HEADER, ALLOCATE, FREE))
    windows = tmp_path / "windows.csv"
    windows.write_bytes(b"\xef\xbb\xbf" + (HEADER + ALLOCATE + FREE).replace("\n", "\r\n").encode())
    assert np.array_equal(trace.read(windows), whole)


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        pytest.param((HEADER + ALLOCATE).encode("utf-16"), "UTF-16.*iconv", id="UTF-16 with a mark"),
        pytest.param((HEADER + ALLOCATE).encode("utf-16-le"), "UTF-16", id="UTF-16 LE"),
        pytest.param((HEADER + ALLOCATE).encode("utf-16-be"), "UTF-16", id="UTF-16 BE"),
        pytest.param((HEADER + ALLOCATE).encode("utf-32"), "UTF-32.*iconv", id="UTF-32 with a mark"),
        pytest.param((HEADER + ALLOCATE).encode("utf-32-le"), "UTF-32", id="UTF-32 LE"),
        pytest.param((HEADER + ALLOCATE).encode("utf-32-be"), "UTF-32", id="UTF-32 BE"),
        pytest.param(bz2.compress(HEADER.encode()), "compressed with bzip2", id="bzip2"),
        pytest.param(lzma.compress(HEADER.encode()), "compressed with xz", id="xz"),
        pytest.param(b"PK\x03\x04" + bytes(100), "compressed with zip", id="zip"),
        pytest.param(b"\x28\xb5\x2f\xfd" + bytes(100), "compressed with zstd", id="zstd"),
        pytest.param(bytes(10_000), "not|header|1024", id="zeroes"),
    ],
)
def test_other_encodings_and_archives_are_named_with_what_to_do(
    tmp_path: Path, contents: bytes, complaint: str
) -> None:
    path = tmp_path / "run.csv"
    path.write_bytes(contents)
    with pytest.raises(TraceError, match=rf"line 1: .*({complaint})"):
        trace.read(path)


def test_device_that_never_ends_is_no_trace() -> None:
    with pytest.raises(TraceError, match="line 1"):
        trace.read("/dev/zero")


def test_flipped_byte_in_gzip_is_reported(tmp_path: Path) -> None:
    damaged = bytearray(trace.example().read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path = tmp_path / "flipped.csv.gz"
    path.write_bytes(damaged)
    with pytest.raises(TraceError, match="line"):
        trace.read(path)


@pytest.mark.parametrize("name", ["plain.csv.gz", "binary.csv"])
def test_other_data_is_reported(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\xff\x00\x81" * 100)
    with pytest.raises(TraceError, match="line 1"):
        trace.read(path)


def test_missing_file_and_folder_are_reported(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        trace.read(tmp_path / "none.csv")
    with pytest.raises(TraceError, match="directory"):
        trace.read(tmp_path)


def test_bytes_in_use_follow_allocations_and_frees(tmp_path: Path) -> None:
    other = ALLOCATE.replace("0x7f", "0x6f").replace("1024", "512")
    failure = ALLOCATE.replace("allocate", "allocate failure")
    events = trace.read(write(tmp_path / "run.csv", HEADER, ALLOCATE, other, failure, FREE))
    assert trace.bytes_in_use(events).tolist() == [1024, 1536, 1536, 512]


def test_bytes_in_use_are_never_below_zero(tmp_path: Path) -> None:
    events = trace.read(write(tmp_path / "late.csv", HEADER, FREE, ALLOCATE))
    assert trace.bytes_in_use(events).tolist() == [0, 1024]
