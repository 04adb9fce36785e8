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
from cenote.logs.trace import Action


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


def test_log_that_is_begun_again_while_it_is_written_is_the_new_one(tmp_path: Path) -> None:
    cenote.reinitialize(logging=True, log_file_name=tmp_path / "log.csv")
    for _ in range(300):
        cenote.DeviceBuffer(size=1000)
    cenote.reinitialize(logging=True, log_file_name=tmp_path / "log.csv")
    for _ in range(5):
        cenote.DeviceBuffer(size=1001)
    cenote.disable_logging()
    assert trace.read(tmp_path / "log.dev0.csv")["bytes"].tolist() == [1001] * 10


def test_log_that_is_enabled_again_gets_the_free_of_an_older_buffer_as_a_whole_line(tmp_path: Path) -> None:
    cenote.reinitialize()
    cenote.enable_logging(tmp_path / "log.csv")
    old = cenote.DeviceBuffer(size=1000)
    cenote.disable_logging()
    cenote.enable_logging(tmp_path / "log.csv")
    new = cenote.DeviceBuffer(size=2000)
    del old, new
    cenote.disable_logging()
    events = trace.read(tmp_path / "log.dev0.csv")
    assert list(zip(events["action"], events["bytes"], strict=True)) == [
        (Action.ALLOCATE, 2000),
        (Action.FREE, 1000),
        (Action.FREE, 2000),
    ]


def test_two_resources_may_share_a_log(tmp_path: Path) -> None:
    logs = [logging(tmp_path / "log.csv"), logging(tmp_path / "log.csv")]
    for log in 100 * logs:
        log.deallocate(log.allocate(256), 256)
    for log in logs:
        log.flush()
    events = trace.read(logs[0].get_file_name())
    assert len(events) == 400
    assert trace.bytes_in_use(events)[-1] == 0


@pytest.mark.parametrize("other", ["log.csv", "./log.csv", "link.csv", "hard.csv"])
def test_two_adaptors_of_a_stack_may_not_share_a_log(tmp_path: Path, other: str) -> None:
    (tmp_path / "link.dev0.csv").symlink_to("log.dev0.csv")
    inner = logging(tmp_path / "log.csv")
    inner.deallocate(inner.allocate(1), 1)
    (tmp_path / "hard.dev0.csv").hardlink_to(tmp_path / "log.dev0.csv")
    with pytest.raises(ValueError, match=r"(log|link|hard)\.dev0\.csv' is written by another logging adaptor"):
        mr.LoggingResourceAdaptor(mr.PoolMemoryResource(inner, "1MiB"), f"{tmp_path}/{other}")
    inner.flush()
    assert len(trace.read(inner.get_file_name())) == 4  # those of the pool as well


def test_log_of_another_process_is_left_alone_and_the_remedy_named(
    tmp_path: Path, run_fresh: Callable[..., CompletedProcess[str]]
) -> None:
    log = logging(tmp_path / "log.csv")
    log.deallocate(log.allocate(1), 1)
    program = """
        import cenote, os
        try:
            cenote.DeviceBuffer(size=1)
        except RuntimeError as error:
            print(error)
        os.environ["CENOTE_RESOURCE"] = "logging:file={folder}/log.%p.csv | cuda"
        cenote.DeviceBuffer(size=1)
        print(os.getpid())
    """.replace("{folder}", str(tmp_path))
    done = run_fresh(program, CENOTE_RESOURCE=f"logging:file={tmp_path}/log.csv | cuda")
    refusal, number = done.stdout.splitlines()
    assert "log.dev0.csv' cannot be opened: another process is writing it; with %p" in refusal
    log.flush()
    assert len(trace.read(log.get_file_name())) == 2
    assert len(trace.read(tmp_path / f"log.{number}.dev0.csv")) == 2
    del log
    run_fresh("import cenote; cenote.DeviceBuffer(size=1)", CENOTE_RESOURCE=f"logging:file={tmp_path}/log.csv | cuda")


def test_log_is_the_parents_alone_after_a_fork(tmp_path: Path, run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    done = run_fresh(
        """
        import os, sys, threading
        import cenote
        log = cenote.mr.from_spec("logging | pool:initial=1MiB")
        blocks = [log.allocate(10) for _ in range(5)]
        stop = False
        def busy():
            while not stop:
                log.flush()
        threads = [threading.Thread(target=busy) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for normal_end in [False] * 30 + [True]:
                child = os.fork()
                if child == 0:
                    import signal
                    signal.alarm(30)
                    try:
                        log.flush()
                    except cenote.DriverUnavailableError:
                        sys.exit(0) if normal_end else os._exit(0)
                    os._exit(1)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            stop = True
            for thread in threads:
                thread.join()
        for block in blocks:
            log.deallocate(block, 10)
        """,
        PYTHONWARNINGS="ignore::DeprecationWarning",  # Python 3.12 and newer warn of a fork beside threads
        CENOTE_LOG_FILE=str(tmp_path / "log.csv"),
    )
    assert done.stderr == ""
    assert len(trace.read(tmp_path / "log.dev0.csv")) == 10


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
