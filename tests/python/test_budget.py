"""`cenote.budget`: what a process may hold of its devices, and that several processes on one device keep to theirs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess

import pytest

import cenote
from cenote import DeviceBuffer, mr

MIB = 1 << 20


@pytest.fixture(autouse=True)
def no_budget_afterwards() -> Iterator[None]:
    yield
    for device in (None, 0, 1):
        cenote.budget(None, device)


def test_budget_bounds_all_resources_of_a_device_and_the_error_names_it() -> None:
    pool = mr.from_spec("pool:max=1GiB")
    before = cenote.get_budget().held
    cenote.budget(before + 8 * MIB)
    kept = [DeviceBuffer(size=4 * MIB, mr=pool), DeviceBuffer(size=2 * MIB, mr=mr.CudaMemoryResource())]
    assert cenote.get_budget() == cenote.Budget(0, before + 8 * MIB, before + 6 * MIB)
    with pytest.raises(cenote.OutOfMemoryError) as caught:
        DeviceBuffer(size=4 * MIB, mr=pool)
    assert caught.value.limit == before + 8 * MIB
    assert "the limit is the budget of the process on the device, of which" in str(caught.value)
    assert "(set by cenote.budget)" in str(caught.value)
    kept.pop()
    assert DeviceBuffer(size=4 * MIB, mr=pool).size == 4 * MIB
    with pytest.raises(MemoryError, match=r"limit 1\.00 MiB") as caught:  # the smallest limit is the one that is named
        DeviceBuffer(size=2 * MIB, mr=mr.LimitingResourceAdaptor(pool, MIB))
    assert "budget" not in str(caught.value)


def test_budget_of_one_device_leaves_the_others_alone() -> None:
    cenote.budget("50%")
    cenote.budget("1 GiB", device=1)
    assert [cenote.get_budget(device).limit for device in (0, 1)] == [4 << 30, 1 << 30]
    cenote.budget(None)
    assert [cenote.get_budget(device).limit for device in (0, 1)] == [None, 1 << 30]


def test_budget_of_the_environment_holds_from_the_start(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    run_fresh(
        """
        import cenote
        assert cenote.get_budget() == cenote.Budget(0, 4 << 30, 0)
        cenote.install("pool", frameworks=())
        try:
            cenote.DeviceBuffer(size=5 << 30)
        except cenote.OutOfMemoryError as error:
            assert error.limit == 4 << 30 and "(set by CENOTE_BUDGET)" in str(error), error
        else:
            raise AssertionError("it was given")
        cenote.budget(None)
        assert cenote.DeviceBuffer(size=5 << 30).size == 5 << 30
        """,
        CENOTE_BUDGET="50%",
    )


def test_wrong_budget_of_the_environment_is_named_at_the_first_allocation(
    run_fresh: Callable[..., CompletedProcess[str]],
) -> None:
    run_fresh(
        """
        import cenote
        try:
            cenote.DeviceBuffer(size=1000)
        except ValueError as error:
            assert str(error).startswith("in the environment variable CENOTE_BUDGET: 'much' is no budget"), error
        else:
            raise AssertionError("it was given")
        """,
        CENOTE_BUDGET="much",
    )


def test_share_and_bytes_are_the_same_for_every_source() -> None:
    for specification in (
        "cuda",
        "virtual",
        "pool",
        "pool:initial=0 | cuda",
        "arena:size=1MiB",
        "async",
        "statistics | pool",
    ):
        resource = mr.from_spec(specification)
        cenote.budget(cenote.get_budget().held + 64 * MIB)
        with pytest.raises(MemoryError):
            DeviceBuffer(size=200 * MIB, mr=resource)
        cenote.budget(None)
        assert DeviceBuffer(size=1000, mr=resource).size == 1000


def test_processes_on_one_device_keep_to_their_parts() -> None:
    """Each takes all that it is given, 4 of them at a time, and never holds more than its part."""
    program = textwrap.dedent(
        """
        import cenote
        cenote.budget("25%")
        cenote.install("pool", frameworks=())
        kept = []
        try:
            while True:
                kept.append(cenote.DeviceBuffer(size=10_000_000))
        except MemoryError:
            pass
        budget = cenote.get_budget()
        assert budget.limit == 256 << 20
        assert budget.limit - 12_000_000 < budget.held <= budget.limit, budget
        """
    )
    environment = {"CENOTE_CUDA_DRIVER": "sim", "CENOTE_SIM": "memory=1GiB"}
    running = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(4)]
    assert [each.wait(timeout=120) for each in running] == [0] * 4
