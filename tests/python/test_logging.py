"""The logging adaptor: one line an event, which `cenote.trace` reads back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

import cenote
from cenote import mr, trace
from cenote.trace import Action


def logging(path: Path | str | None, specification: str = "cuda", device: int = 0) -> mr.LoggingResourceAdaptor:
    return mr.LoggingResourceAdaptor(mr.from_spec(specification, device), path)


def test_log_reads_back_as_what_happened(tmp_path: Path) -> None:
    log, stream = logging(tmp_path / "log.csv", "pool:initial=0,max=4MiB | cuda"), cenote.Stream()
    address = log.allocate(1000, stream)
    with pytest.raises(MemoryError):
        log.allocate(2**40)
    log.deallocate(address, 1000, stream)
    log.flush()
    events = trace.read(log.get_file_name())
    assert events["action"].tolist() == [Action.ALLOCATE, Action.FAILURE, Action.FREE]
    assert events["pointer"].tolist() == [address, 0, address]
    assert events["bytes"].tolist() == [1000, 2**40, 1000]
    assert events["stream"].tolist() == [stream.handle, 0, stream.handle]
    assert set(events["thread"].tolist()) == {threading.get_native_id()}
    assert np.all(np.diff(events["time_us"]) >= 0)
    assert trace.bytes_in_use(events).tolist() == [1000, 1000, 0]


@pytest.mark.parametrize(
    ("given", "written"),
    [("log.csv", "log.dev1.csv"), ("log", "log.dev1"), ("a.b.csv", "a.b.dev1.csv"), (".csv", ".csv.dev1")],
)
def test_device_is_put_before_the_extension(tmp_path: Path, given: str, written: str) -> None:
    log = logging(tmp_path / given, device=1)
    assert log.get_file_name() == str(tmp_path / written)
    assert [path.name for path in tmp_path.iterdir()] == [written]


def test_relative_name_becomes_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert logging("log.csv").get_file_name() == str(tmp_path / "log.dev0.csv")


def test_text_path_and_pathlike_are_the_same(tmp_path: Path) -> None:
    assert logging(str(tmp_path / "log.csv")).get_file_name() == logging(tmp_path / "log.csv").get_file_name()


def test_file_that_was_there_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "log.dev0.csv").write_text("something else\n")
    log = logging(tmp_path / "log.csv")
    log.flush()
    assert len(trace.read(log.get_file_name())) == 0


def test_log_is_complete_when_the_adaptor_dies(tmp_path: Path) -> None:
    log = logging(tmp_path / "log.csv")
    name = log.get_file_name()
    log.deallocate(log.allocate(1), 1)
    del log
    assert len(trace.read(name)) == 2


def test_log_is_complete_when_the_process_ends(tmp_path: Path, run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    run_fresh(
        """
        import cenote
        cenote.mr.set_current_device_resource(cenote.mr.from_spec("logging | pool:initial=0 | cuda"))
        kept = cenote.DeviceBuffer(size=1000)
        """,
        CENOTE_LOG_FILE=str(tmp_path / "log.csv"),
    )
    assert trace.read(tmp_path / "log.dev0.csv")["bytes"][0] == 1000


def test_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CENOTE_LOG_FILE", str(tmp_path / "of-the-environment.csv"))
    assert logging(None).get_file_name() == str(tmp_path / "of-the-environment.dev0.csv")
    assert logging(tmp_path / "given.csv").get_file_name() == str(tmp_path / "given.dev0.csv")


def test_no_file_at_all_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"log_file_name.*CENOTE_LOG_FILE"):
        logging(None)


def test_path_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no/folder/log\.dev0\.csv' cannot be opened: No such file"):
        logging(tmp_path / "no" / "folder" / "log.csv")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_full_disk_is_reported_and_takes_no_memory_away(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.dev0.csv").symlink_to("/dev/full")
    log = logging(tmp_path / "log.csv", "statistics | cuda")
    held = [log.allocate(256) for _ in range(500)]
    with pytest.raises(RuntimeError, match="cannot be written: No space left on device"):
        log.flush()
    for address in held:
        log.deallocate(address, 256)
    counted = log.get_upstream()
    assert isinstance(counted, mr.StatisticsResourceAdaptor)
    assert (counted.allocation_counts.current_count, counted.allocation_counts.total_count) == (0, 500)
    assert capfd.readouterr().err.count("lines are missing") == 1


def test_lines_of_many_threads_stay_whole(tmp_path: Path) -> None:
    log = logging(tmp_path / "log.csv", "pool:initial=1MiB | cuda")

    def work() -> None:
        for _ in range(200):
            log.deallocate(log.allocate(256), 256)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.flush()
    events = trace.read(log.get_file_name())
    assert len(events) == 4 * 200 * 2
    assert trace.bytes_in_use(events)[-1] == 0
    assert len(set(events["thread"].tolist())) == 4
