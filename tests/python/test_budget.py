"""`cenote.budget`: what a process may hold of its devices, and that several processes on one device keep to theirs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
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
    assert cenote.get_budget() == cenote.Budget(0, before + 8 * MIB, before + 6 * MIB, before + 6 * MIB)
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
        assert cenote.get_budget() == cenote.Budget(0, 4 << 30, 0, 0)
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


SHARING = """
    import os, sys
    import cenote
    cenote.budget("50%", share=os.environ["SHARE"])
    cenote.install("pool", frameworks=())
    kept = None
    for line in sys.stdin:  # "allocate MiB", "free", "held"
        word, *arguments = line.split()
        answer = "done"
        if word == "allocate":
            try:
                kept = cenote.DeviceBuffer(size=int(arguments[0]) << 20)
            except MemoryError as error:
                answer = "refused"
        elif word == "free":
            kept = None
        elif word == "held":
            budget = cenote.get_budget()
            answer = f"{budget.held >> 20} {budget.shared >> 20} {budget.limit >> 20}"
        print(answer, flush=True)
"""


class Process:
    """One that shares a budget, and does what it is told."""

    def __init__(self, share: str) -> None:
        environment = {"CENOTE_CUDA_DRIVER": "sim", "CENOTE_SIM": "memory=1GiB", "SHARE": share}
        command = [sys.executable, "-c", textwrap.dedent(SHARING)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)

    def tell(self, words: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(words, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def held(self) -> list[int]:
        return [int(each) for each in self.tell("held").split()]


@pytest.fixture
def share() -> Iterator[str]:
    """A name of a budget that nobody else has; its file goes afterwards."""
    name = f"test-{os.getpid()}"
    yield name
    for file in Path("/dev/shm").glob(f"cenote-budget-*-{name}-*"):
        file.unlink()


@pytest.fixture
def start(share: str) -> Iterator[Callable[[], Process]]:
    started: list[Process] = []

    def start_another() -> Process:
        started.append(Process(share))
        return started[-1]

    yield start_another
    for each in started:
        each.process.kill()
        each.process.communicate()


@pytest.mark.slow
def test_processes_that_share_a_budget_never_hold_more_together(start: Callable[[], Process]) -> None:
    first, second = start(), start()
    assert first.tell("allocate 300") == "done"
    assert second.tell("allocate 300") == "refused"
    assert second.tell("allocate 200") == "done"
    held, together, limit = second.held()
    assert held == 200 and together == 500 and limit == 512


def test_third_process_gets_what_the_others_hold_and_do_not_use(start: Callable[[], Process]) -> None:
    first, second, third = start(), start(), start()
    for each in (first, second):
        assert each.tell("allocate 200") == "done"
        each.tell("free")
        assert each.held()[0] > 150  # the pool keeps some for the next allocation
    assert third.tell("allocate 400") == "done"
    assert first.held()[0] + second.held()[0] <= 112
    assert third.held()[1] <= 512


@pytest.mark.slow
def test_what_a_killed_process_held_is_there_for_the_others(start: Callable[[], Process]) -> None:
    first, second = start(), start()
    assert first.tell("allocate 400") == "done"
    assert second.tell("allocate 400") == "refused"
    first.process.kill()
    first.process.wait()
    assert second.tell("allocate 400") == "done"
    assert second.held() == [400, 400, 512]


def test_processes_on_other_cards_do_not_count(share: str, run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    run_fresh(
        f"""
        import cenote
        cenote.budget("1GiB", share={share!r})
        cenote.driver.set_device(0)
        kept = cenote.DeviceBuffer(size=900 << 20)
        assert cenote.get_budget(0).shared == 900 << 20 and cenote.get_budget(1).shared == 0
        cenote.budget("1GiB")
        assert cenote.get_budget(0).shared == 900 << 20
        """
    )


def test_file_that_another_user_could_have_put_there_is_refused(share: str, tmp_path: Path) -> None:
    from cenote._core.budget import device_uuid

    path = Path("/dev/shm") / f"cenote-budget-{os.getuid()}-{share}-{device_uuid(0)}"
    (tmp_path / "elsewhere").touch()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RuntimeError, match="the file of a shared budget cannot be opened"):
        cenote.budget("50%", 0, share=share)
    path.unlink()
    path.write_bytes(b"\7\0\0\0" + bytes(4096))
    with pytest.raises(RuntimeError, match="is of another version of cenote"):
        cenote.budget("50%", 0, share=share)
