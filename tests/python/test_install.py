"""`cenote.install` where there is no real device: what it reports, and what it refuses."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import cenote
from cenote import frameworks, mr


def test_each_framework_has_a_row_that_says_why_it_is_not_there() -> None:
    report = cenote.install("pool:initial=0")
    assert [row.framework for row in report] == ["torch", "cupy", "numba"]
    assert not report
    for row in report:
        assert not row.installed
        if importlib.util.find_spec(row.framework) is None:
            assert row.detail == f"not installed: pip install 'cenote[{row.framework}]'"
        else:
            assert "no GPU" in row.detail and "simulated" in row.detail


def test_resource_is_current_although_no_framework_took_it() -> None:
    report = cenote.install("statistics | pool:initial=0", frameworks=())
    assert bool(report)
    assert report.resource == mr.get_current_device_resource().specification == "statistics | pool:initial=0 | cuda"


def test_resource_may_be_an_object() -> None:
    pool = mr.from_spec("pool:initial=0")
    cenote.install(pool, frameworks=())
    assert mr.get_current_device_resource() is pool


def test_same_specification_again_makes_no_other_resource() -> None:
    cenote.install("pool:initial=0,max=64MiB", frameworks=())
    first = mr.get_current_device_resource()
    cenote.install("pool:initial=0,max=64MiB", frameworks=())
    assert mr.get_current_device_resource() is first
    cenote.install("pool:initial=0,max=32MiB", frameworks=())
    assert mr.get_current_device_resource() is not first


def test_resource_that_was_replaced_meanwhile_is_made_again() -> None:
    cenote.install("pool:initial=0,max=16MiB", frameworks=())
    mr.set_current_device_resource(mr.CudaMemoryResource())
    report = cenote.install("pool:initial=0,max=16MiB", frameworks=())
    assert report.resource == mr.get_current_device_resource().specification == "pool:initial=0,max=16MiB | cuda"


def test_resource_goes_to_the_device_that_is_named_or_current(
    on_device: Callable[[int], AbstractContextManager[None]],
) -> None:
    cenote.install("pool:initial=0", frameworks=(), device=1)
    assert mr.get_per_device_resource(1).specification == "pool:initial=0 | cuda"
    assert mr.get_per_device_resource(0).specification == "cuda"
    with on_device(1):
        cenote.install("statistics | cuda", frameworks=())
    assert mr.get_per_device_resource(1).specification == "statistics | cuda"


def test_unknown_framework_is_a_value_error_and_changes_nothing() -> None:
    before = mr.get_current_device_resource()
    with pytest.raises(ValueError, match="'jax' is not a framework that cenote knows; known are: torch, cupy, numba"):
        cenote.install("pool:initial=0", frameworks=("torch", "jax"))
    assert mr.get_current_device_resource() is before


def test_wrong_specification_is_a_value_error_and_changes_nothing() -> None:
    before = mr.get_current_device_resource()
    with pytest.raises(ValueError, match="'lake' is not a known resource"):
        cenote.install("lake")
    assert mr.get_current_device_resource() is before


def test_resource_of_another_device_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="device 1 cannot serve device 0"):
        cenote.install(mr.from_spec("cuda", 1), device=0)


def test_report_prints_as_a_table() -> None:
    report = frameworks.InstallReport(
        "pool | cuda",
        (frameworks.InstallRow("torch", True, "tensors"), frameworks.InstallRow("cupy", False, "a <b> & c")),
    )
    assert str(report).splitlines() == ["current resource: pool | cuda", "  ✓ torch  tensors", "  ✗ cupy   a <b> & c"]
    html = report._repr_html_()
    assert "current resource: pool | cuda" in html
    assert "<td>✓</td><td>torch</td>" in html
    assert "a &lt;b&gt; &amp; c" in html
    assert str(frameworks.InstallReport("", ())) == "current resource: none"


def test_without_a_driver_every_row_says_so(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    run_fresh(
        """
        import cenote
        report = cenote.install()
        assert report.resource == "" and not report
        rows = list(report)
        assert len(rows) == 3 and all(not row.installed and row.detail.startswith("no GPU: ") for row in rows), rows
        assert "CENOTE_CUDA_DRIVER=sim" in str(report) and "current resource: none" in str(report)
        """,
        CENOTE_CUDA_DRIVER="/no/such/libcuda.so.1",
    )


def test_no_framework_is_imported_where_it_could_not_be_used(
    tmp_path: Path, run_fresh: Callable[..., CompletedProcess[str]]
) -> None:
    for name in frameworks.FRAMEWORKS:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('was imported')\n")
    run_fresh(
        """
        import cenote
        report = cenote.install("pool:initial=0")
        assert report.resource == "pool:initial=0 | cuda"
        assert [row.installed for row in report] == [False] * 3
        assert all("simulated" in row.detail for row in report), str(report)
        """,
        PYTHONPATH=str(tmp_path),
    )


def test_one_framework_may_be_given_as_a_word():
    assert [row.framework for row in cenote.install("cuda", frameworks="torch")] == ["torch"]
