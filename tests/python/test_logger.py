"""The debug log: through `logging`, to a file, or to stderr."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from cenote import driver, logger, mr
from cenote._core import logger as _logger
from cenote.logger import level_enum


@pytest.fixture(autouse=True)
def log_left_as_it_was() -> Iterator[None]:
    level, flush = logger.get_logging_level(), logger.get_flush_level()
    yield
    logger.set_logging_level(level)
    logger.set_flush_level(flush)
    logger._stop()  # other tests expect what is reported on stderr
    logging.getLogger("cenote").setLevel(logging.NOTSET)


def fill_pool() -> None:
    pool = mr.PoolMemoryResource(mr.CudaMemoryResource(), 0, "4MiB")
    pool.deallocate(pool.allocate(1000), 1000)
    with pytest.raises(MemoryError):
        pool.allocate(2**40)
    driver.synchronize(0)
    pool.trim()  # gives back nothing where another thread has put work on the stream meanwhile


def test_levels_are_those_of_rmm_in_order() -> None:
    names = ["trace", "debug", "info", "warn", "error", "critical", "off", "n_levels"]
    assert [(level.name, level.value) for level in level_enum] == list(zip(names, range(8), strict=True))


@pytest.mark.parametrize("level", level_enum)
def test_every_level_can_be_set_and_read_back(level: level_enum) -> None:
    logger.set_logging_level(level)
    assert logger.get_logging_level() is level
    logger.set_flush_level(level)
    assert logger.get_flush_level() is level
    assert [logger.should_log(other) for other in level_enum] == [level <= other < 6 for other in range(8)]


@pytest.mark.parametrize("level", ["INFO", 3, "invalid", 100, None, 1.2345, [1, 2, 3], True])
def test_what_is_no_level_is_a_type_error(level: Any) -> None:
    for function in (logger.set_logging_level, logger.set_flush_level, logger.should_log):
        with pytest.raises(TypeError, match=f"level_enum, not {type(level).__name__}"):
            function(level)


def test_core_says_what_its_pools_do(caplog: pytest.LogCaptureFixture) -> None:
    logger.set_logging_level(level_enum.debug)
    fill_pool()
    logger.flush_logger()
    said = [record.getMessage() for record in caplog.records if record.name == "cenote"]
    assert said[0] == "the pool on device 0 grew by 2.00 MiB and holds 2.00 MiB"
    assert re.match(r"out_of_memory: .*'pool:initial=0,max=4MiB \| cuda'", said[1])
    assert said[2] == "the pool on device 0 gave back 2.00 MiB and holds 0 B"
    assert {(record.levelno, record.thread) for record in caplog.records} == {(10, threading.get_native_id())}


def test_what_is_below_the_level_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(1, "cenote")
    for level in (level_enum.info, level_enum.off, level_enum.n_levels):
        _logger.set_level(level)
        fill_pool()
    _logger.log(level_enum.critical, "nobody hears this")
    logger.flush_logger()
    assert [record for record in caplog.records if record.name == "cenote"] == []


@pytest.mark.parametrize(
    ("level", "expected"), [("trace", 5), ("debug", 10), ("info", 20), ("warn", 30), ("error", 40), ("critical", 50)]
)
def test_levels_become_those_of_logging(level: str, expected: int, caplog: pytest.LogCaptureFixture) -> None:
    logger.set_logging_level(level_enum.trace)
    _logger.log(level_enum[level], "a line")
    logger.flush_logger()
    assert [(r.levelno, r.getMessage()) for r in caplog.records if r.name == "cenote"] == [(expected, "a line")]


def test_lines_arrive_without_a_flush(caplog: pytest.LogCaptureFixture) -> None:
    arrived = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            arrived.set()

    handler = Handler()
    logging.getLogger("cenote").addHandler(handler)
    try:
        logger.set_logging_level(level_enum.info)
        _logger.log(level_enum.info, "a line")
        assert arrived.wait(60)
    finally:
        logging.getLogger("cenote").removeHandler(handler)


def test_handler_may_use_cenote_itself(caplog: pytest.LogCaptureFixture) -> None:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "grew" in record.getMessage():
                fill_pool() if len(seen) < 3 else None
                seen.append(record.getMessage())
                logger.flush_logger()

    seen: list[str] = []
    handler = Handler()
    logging.getLogger("cenote").addHandler(handler)
    try:
        logger.set_logging_level(level_enum.debug)
        fill_pool()
        logger.flush_logger()
        assert len(seen) >= 1
    finally:
        logging.getLogger("cenote").removeHandler(handler)


class FailingHandler(logging.Handler):
    """Raises what it is told to, for lines that name it, and keeps the others."""

    def __init__(self, **raised: BaseException) -> None:
        super().__init__()
        self.raised = raised
        self.seen: list[str] = []
        self.arrived = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if line in self.raised:
            raise self.raised[line]
        self.seen.append(line)
        if line == "last":
            self.arrived.set()


@pytest.fixture
def failing_handler() -> Iterator[FailingHandler]:
    handler = FailingHandler(
        bad=ValueError("bad"), worse=KeyError("worse"), stop=SystemExit(3), ctrl=KeyboardInterrupt()
    )
    logging.getLogger("cenote").addHandler(handler)
    yield handler
    logging.getLogger("cenote").removeHandler(handler)


def test_a_handler_that_raises_keeps_no_other_line_back(
    failing_handler: FailingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    logger.set_logging_level(level_enum.info)
    lines = ["bad", "first", "stop", "second", "ctrl", "worse", "last"]
    for line in lines:
        _logger.log(level_enum.info, line)
    assert failing_handler.arrived.wait(60), "the thread that hands lines over has ended"
    assert failing_handler.seen == ["first", "second", "last"]
    assert [report.exc_value for report in reported] == [
        failing_handler.raised[line] for line in lines if line in failing_handler.raised
    ]


def test_what_a_handler_raises_reaches_who_flushes_once_all_lines_are_handed_over(
    failing_handler: FailingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    monkeypatch.setattr(logger, "_listen", _logger.start_listening)  # and no thread that would be faster
    logger.set_logging_level(level_enum.info)
    for line in ("bad", "first", "worse", "last"):
        _logger.log(level_enum.info, line)
    with pytest.raises(ValueError, match="bad"):
        logger.flush_logger()
    assert failing_handler.seen == ["first", "last"]
    assert [report.exc_value for report in reported] == [failing_handler.raised["worse"]]
    logger.flush_logger()


def test_an_interrupt_of_a_handler_reaches_who_flushes_and_loses_no_line(
    failing_handler: FailingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger, "_listen", _logger.start_listening)
    logger.set_logging_level(level_enum.info)
    for line in ("ctrl", "first", "stop", "last"):
        _logger.log(level_enum.info, line)
    with pytest.raises(KeyboardInterrupt):
        logger.flush_logger()
    assert failing_handler.seen == []
    with pytest.raises(SystemExit):
        logger.flush_logger()
    logger.flush_logger()
    assert failing_handler.seen == ["first", "last"]


def test_lines_of_many_threads_arrive_whole_and_each_threads_in_order(caplog: pytest.LogCaptureFixture) -> None:
    logger.set_logging_level(level_enum.info)

    def work(name: int) -> None:
        for i in range(100):
            _logger.log(level_enum.info, f"{name}:{i}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logger.flush_logger()
    said = [record.getMessage().split(":") for record in caplog.records if record.name == "cenote"]
    for name in range(4):
        assert [int(i) for n, i in said if n == str(name)] == list(range(100))


FULL = """
    import logging, threading
    from cenote import logger
    from cenote._core import logger as _logger
    from cenote.logger import level_enum
    started, may_go_on = threading.Event(), threading.Event()
    class Slow(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())
            started.set()
            may_go_on.wait()
    lines = []
    logging.getLogger("cenote").addHandler(Slow())
    logger.set_logging_level(level_enum.info)
    _logger.log(level_enum.info, "first")
    started.wait()
    for i in range(5000):
        _logger.log(level_enum.info, str(i))
    may_go_on.set()
    logger.flush_logger()
    assert lines[0] == "first" and lines[1].startswith("904 lines before this one were dropped"), lines[:3]
    assert lines[2:] == [str(i) for i in range(904, 5000)]
"""


def test_queue_is_bounded_and_says_what_it_dropped(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    run_fresh(FULL)


PROGRAM = """
    import cenote
    pool = cenote.mr.PoolMemoryResource(cenote.mr.CudaMemoryResource(), 0)
    pool.deallocate(pool.allocate(1000), 1000)
    pool.deallocate(1234, 1000)
"""
GREW = "the pool on device 0 grew by 2.00 MiB and holds 2.00 MiB"
UNKNOWN = "a pointer was freed that the pool did not give out"


def test_without_a_listener_lines_go_to_stderr(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    assert f"cenote: {UNKNOWN}" in run_fresh(PROGRAM).stderr
    assert GREW not in run_fresh(PROGRAM).stderr
    assert f"cenote: debug: {GREW}" in run_fresh(PROGRAM, CENOTE_LOG_LEVEL="Debug").stderr
    assert run_fresh(PROGRAM, CENOTE_LOG_LEVEL="off").stderr == ""


def test_level_of_the_environment_that_is_none_is_named(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    assert "CENOTE_LOG_LEVEL is 'loud'" in run_fresh("import cenote", CENOTE_LOG_LEVEL="loud").stderr


@pytest.mark.parametrize("variable", ["CENOTE_DEBUG_LOG_FILE", "RMM_DEBUG_LOG_FILE"])
def test_file_of_the_environment_gets_the_lines_in_rmms_form(
    variable: str, tmp_path: Path, run_fresh: Callable[..., CompletedProcess[str]]
) -> None:
    path = tmp_path / "debug.txt"
    path.write_text("from an earlier run")
    done = run_fresh(PROGRAM, **{variable: str(path), "CENOTE_LOG_LEVEL": "debug"})
    assert done.stderr == ""
    first, second = path.read_text().splitlines()
    assert re.fullmatch(rf"\[ *\d+\]\[\d\d:\d\d:\d\d:\d{{6}}\]\[debug \] {GREW}", first)
    assert re.match(rf"\[ *\d+\]\[\d\d:\d\d:\d\d:\d{{6}}\]\[error \] {UNKNOWN}", second)


def test_file_that_cannot_be_opened_is_named_and_stderr_used(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    said = run_fresh(PROGRAM, CENOTE_DEBUG_LOG_FILE="/no/folder/debug.txt").stderr
    assert "'/no/folder/debug.txt' cannot be opened: No such file" in said
    assert f"cenote: {UNKNOWN}" in said


def test_where_logging_has_no_handler_lines_go_to_stderr(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    listening = "import cenote.logger as l; l.set_logging_level(l.level_enum.debug)\n"
    said = run_fresh(listening + "exec('''" + PROGRAM.replace("\n    ", "\n") + "''')").stderr
    assert f"cenote: debug: {GREW}" in said and f"cenote: {UNKNOWN}" in said


def test_lines_of_the_programs_end_are_not_lost(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    done = run_fresh("""
        import logging, sys
        import cenote.logger as l
        logging.basicConfig(stream=sys.stdout, level=1, format="%(name)s %(levelname)s %(message)s")
        l.set_logging_level(l.level_enum.trace)
        l._logger.log(0, "the last line")
    """)
    assert done.stdout == "cenote TRACE the last line\n"


def test_processes_share_a_log_file_and_the_first_begins_it_anew(
    tmp_path: Path, run_fresh: Callable[..., CompletedProcess[str]]
) -> None:
    (tmp_path / "log").write_text("of long ago\n")
    run_fresh(
        """
        import os, subprocess, sys
        import cenote.logger as l
        l._logger.log(2, "of the parent")
        child = os.fork()
        if child == 0:
            l._logger.log(2, "of a forked child")
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        subprocess.run([sys.executable, "-c", "import cenote.logger as l; l._logger.log(2, 'of another program')"],
                       check=True)
        l._logger.log(2, "of the parent again")
        """,
        CENOTE_DEBUG_LOG_FILE=str(tmp_path / "log"),
    )
    said = [line.rpartition("] ")[2] for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(said) == ["of a forked child", "of another program", "of the parent", "of the parent again"]


def test_log_file_may_have_the_number_of_the_process_in_its_name(
    tmp_path: Path, run_fresh: Callable[..., CompletedProcess[str]]
) -> None:
    done = run_fresh(
        """
        import os
        import cenote.logger as l
        l._logger.log(2, "a line")
        print(os.getpid())
        """,
        CENOTE_DEBUG_LOG_FILE=str(tmp_path / "log.%p"),
    )
    assert (tmp_path / f"log.{done.stdout.strip()}").read_text().endswith("] a line\n")


def test_log_file_may_be_stdout(tmp_path: Path, run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    done = run_fresh(
        """
        import cenote.logger as l
        print("before", flush=True)
        l._logger.log(2, "a line")
        l.flush_logger()
        print("after")
        """,
        CENOTE_DEBUG_LOG_FILE="/dev/stdout",
    )
    assert [line.rpartition("] ")[2] for line in done.stdout.splitlines()] == ["before", "a line", "after"]


def test_forked_child_writes_to_stderr_and_can_listen_again(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    done = run_fresh("""
        import logging, os, sys
        import cenote.logger as l
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        l.set_logging_level(l.level_enum.info)
        child = os.fork()
        if child == 0:
            l._logger.log(3, "of the child")
            l.flush_logger()
            l._logger.log(3, "heard in the child")
            l.flush_logger()
            sys.stdout.flush()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        l._logger.log(3, "of the parent")
        l.flush_logger()
    """)
    assert "cenote: warn: of the child\n" in done.stderr
    assert sorted(done.stdout.splitlines()) == ["heard in the child", "of the parent"]


def test_importing_cenote_starts_no_thread_and_does_not_touch_logging(
    run_fresh: Callable[..., CompletedProcess[str]],
) -> None:
    run_fresh("""
        import sys, threading
        import cenote, cenote.logger, logging
        assert threading.active_count() == 1
        assert logging.getLogger("cenote").level == logging.NOTSET
        assert cenote.logger.get_logging_level() is cenote.logger.level_enum.info
    """)


def test_reports_reach_logging(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    logger.flush_logger()
    resource = mr.PoolMemoryResource(mr.CudaMemoryResource(), 0)
    resource.allocate(5 * 256)
    del resource  # with a block in use
    logger.flush_logger()
    said = [record.getMessage() for record in caplog.records if record.name == "cenote"]
    assert any("a pool is destroyed with blocks still in use: 1" in line for line in said)
    assert capfd.readouterr().err == ""
