"""Reading recorded allocations: both forms, and every way in which a file can be damaged."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from cenote import trace
from cenote.trace import Action, TraceError

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
        ((HEADER, ALLOCATE, "7,00:00:01:0000"), 3, "cut short"),
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


def test_truncated_gzip_is_reported(tmp_path: Path) -> None:
    whole = trace.example().read_bytes()
    for kept in (5, 40, len(whole) // 2, len(whole) - 4):
        path = tmp_path / f"cut{kept}.csv.gz"
        path.write_bytes(whole[:kept])
        with pytest.raises(TraceError, match="line"):
            trace.read(path)


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
