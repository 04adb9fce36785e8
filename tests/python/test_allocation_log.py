"""Logging of allocations, switched on and off for every device at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import cenote
from cenote import mr, registry, trace
from cenote.logs.recording import _flush_logs

BOTH = (0, 1)


@pytest.fixture(autouse=True)
def devices_without_resources() -> Iterator[None]:
    mr.reset_all_device_resources()
    yield
    mr.reset_all_device_resources()


def test_every_device_with_a_resource_is_logged_to_a_file_of_its_own(tmp_path: Path) -> None:
    resources = [mr.get_per_device_resource(device) for device in BOTH]
    cenote.enable_logging(tmp_path / "log.csv")
    assert cenote.get_log_filenames() == {device: str(tmp_path / f"log.dev{device}.csv") for device in BOTH}
    for device in BOTH:
        log = mr.get_per_device_resource(device)
        assert isinstance(log, mr.LoggingResourceAdaptor) and log.upstream_mr is resources[device]
        log.deallocate(log.allocate(1000 + device), 1000 + device)
    _flush_logs()
    for device in BOTH:
        assert trace.read(tmp_path / f"log.dev{device}.csv")["bytes"].tolist() == [1000 + device] * 2
    cenote.disable_logging()
    assert [mr.get_per_device_resource(device) for device in BOTH] == resources
    assert cenote.get_log_filenames() == {0: None, 1: None}


def test_chosen_device_is_logged_at_once_where_none_has_a_resource(
    tmp_path: Path, on_device: Callable[[int], AbstractContextManager[None]]
) -> None:
    assert cenote.get_log_filenames() == {}
    with on_device(1):
        cenote.enable_logging(str(tmp_path / "log.csv"))
    assert cenote.get_log_filenames() == {1: str(tmp_path / "log.dev1.csv")}


def test_devices_without_a_resource_are_logged_from_their_first_use(tmp_path: Path) -> None:
    mr.get_per_device_resource(1)
    cenote.enable_logging(tmp_path / "a,b | c.csv")
    assert cenote.get_log_filenames() == {1: str(tmp_path / "a,b | c.dev1.csv")}
    log = mr.get_per_device_resource(0)
    assert cenote.get_log_filenames() == {device: str(tmp_path / f"a,b | c.dev{device}.csv") for device in BOTH}
    assert mr.from_spec(log.specification, 0).specification == log.specification
    mr.reset_per_device_resource(0)
    cenote.disable_logging()
    assert mr.get_per_device_resource(0).specification == "cuda"
    assert registry.default_specification() == "cuda"


def test_file_is_that_of_the_folder_in_which_logging_was_enabled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cenote.enable_logging("log.csv")
    monkeypatch.chdir("/")
    mr.get_per_device_resource(1)
    assert cenote.get_log_filenames() == {1: str(tmp_path / "log.dev1.csv")}


def test_what_is_logged_already_is_left_as_it_is(tmp_path: Path) -> None:
    cenote.enable_logging(tmp_path / "first.csv")
    log = mr.get_current_device_resource()
    cenote.enable_logging(tmp_path / "second.csv")
    assert mr.get_current_device_resource() is log
    counted = mr.StatisticsResourceAdaptor(log)
    mr.set_current_device_resource(counted)
    cenote.enable_logging(tmp_path / "second.csv")
    assert mr.get_current_device_resource() is counted
    assert cenote.get_log_filenames() == {0: str(tmp_path / "first.dev0.csv")}
    cenote.disable_logging()  # what stands on the log is not taken off with it
    assert mr.get_current_device_resource() is counted


def test_file_that_cannot_be_opened_leaves_every_device_as_it_was(tmp_path: Path) -> None:
    before = {device: mr.get_per_device_resource(device) for device in BOTH}
    (tmp_path / "log.dev1.csv").mkdir()
    with pytest.raises(RuntimeError, match=r"log\.dev1\.csv"):
        cenote.enable_logging(tmp_path / "log.csv")
    assert {device: registry.find_per_device_resource(device) for device in BOTH} == before


def test_without_a_file_name_it_is_a_value_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RMM_LOG_FILE", raising=False)
    with pytest.raises(ValueError, match="log_file_name"):
        cenote.enable_logging()


def test_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CENOTE_LOG_FILE", str(tmp_path / "log.csv"))
    cenote.enable_logging()
    mr.get_per_device_resource(0)
    assert cenote.get_log_filenames() == {0: str(tmp_path / "log.dev0.csv")}


def test_disabling_what_was_never_enabled_changes_nothing() -> None:
    cenote.disable_logging()
    before = mr.get_current_device_resource()
    cenote.disable_logging()
    assert mr.get_current_device_resource() is before
