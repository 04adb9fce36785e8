"""Fixtures of pytest for programs that use cenote: a simulated device of a test's own, and what must be true after it.

pytest finds this plugin by its entry point once cenote is installed. It lies outside the package `cenote`, which it
imports when a test first asks for a fixture: a run that asks for none pays nothing, and conftest.py may choose the
driver before.

``cenote_sim``
    The module `cenote.sim`, on a machine that was built for this test: ``@pytest.mark.cenote_sim(devices=2,
    memory="24GiB")`` says which, with the arguments of `cenote.sim.configure`. Afterwards the test fails where a
    violation or a report of cenote's is left. The machine that ``CENOTE_SIM`` named before is built again.
``cenote_no_leaks``
    The same, and the test fails where memory is left that it has made.
``cenote_no_reports``
    On any driver: the test fails where cenote has reported something.

A test that a fixture fails is an error of its teardown. `cenote_sim` is an error where the driver of a GPU is in use.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from types import ModuleType

import pytest

_MARK = "cenote_sim"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, also where markers are strict."""
    config.addinivalue_line(
        "markers",
        f"{_MARK}(**machine): the simulated machine of the fixture cenote_sim, as cenote.sim.configure has it",
    )


@pytest.fixture
def cenote_no_reports() -> Iterator[None]:
    """Fail the test where cenote has reported a failure that it could not raise, on whatever driver."""
    from cenote import sim

    gc.collect()
    sim.clear_reports()
    yield
    gc.collect()
    _fail_for("cenote reported", sim.reports())


@pytest.fixture
def cenote_sim(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """Build a simulated machine for the test; fail the test for violations and reports."""
    from cenote import sim

    mark = request.node.get_closest_marker(_MARK)
    if mark is not None and mark.args:
        raise pytest.UsageError(f"{request.node.nodeid}: the marker {_MARK} takes arguments by name only")
    gc.collect()  # what earlier tests have left is freed on the machine that it was made on
    before = os.environ.get("CENOTE_SIM")
    sim.configure(**({} if mark is None else mark.kwargs))
    yield sim
    gc.collect()
    sim.drain()
    violations, reports = sim.violations(), sim.reports()
    if before is not None:
        os.environ["CENOTE_SIM"] = before
        sim.reset()
    _fail_for("violations", violations)
    _fail_for("cenote reported", reports)


@pytest.fixture
def cenote_no_leaks(cenote_sim: ModuleType) -> Iterator[ModuleType]:
    """Build a simulated machine for the test; fail it where memory is left, and as `cenote_sim` does."""
    yield cenote_sim
    from cenote import mr

    mr.reset_all_device_resources()
    gc.collect()
    cenote_sim.drain()
    left = [
        f"{each.kind}: {each.bytes} bytes at {each.handle:#x}"
        + (f" on device {each.device}" if each.device is not None else "")
        + f", made by {each.made_by}"
        for each in cenote_sim.live_objects()
        if each.kind not in ("pool", "stream", "event", "graph")
    ]
    _fail_for("memory is left", left)


def _fail_for(what: str, lines: list[str]) -> None:
    if lines:
        pytest.fail("\n".join([f"{what}:", *(f"  {line}" for line in lines)]), pytrace=False)
