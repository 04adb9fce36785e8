"""Memory of the driver's pools, as other devices see it: copies between devices, and which devices may use it."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from cenote import mr

FRESH = """
import ctypes
import cenote
from cenote import driver, mr, sim

library = ctypes.CDLL(str(sim._library.find_library()))

class Location(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("id", ctypes.c_int)]

def is_open(pool, device):
    flags, where = ctypes.c_int(), Location(1, device)
    assert library.cuMemPoolGetAccess(ctypes.byref(flags), ctypes.c_void_p(pool), ctypes.byref(where)) == 0
    return flags.value == 3

def copy(to, source, device):
    '''The driver's answer to a copy on a stream of a device.'''
    driver.set_device(device)
    stream = cenote.Stream(device=device)
    answer = library.cuMemcpyAsync(ctypes.c_void_p(to), ctypes.c_void_p(source), ctypes.c_size_t(256),
                                   ctypes.c_void_p(stream.handle))
    stream.synchronize()
    return answer
"""


@pytest.fixture
def run(run_fresh: Callable[..., CompletedProcess[str]]) -> Callable[..., CompletedProcess[str]]:
    """Runs a program on three devices that know nothing of one another yet."""

    def on_three(code: str, settings: str = "devices=3,memory=8GiB") -> CompletedProcess[str]:
        return run_fresh(FRESH + code, CENOTE_SIM=settings)

    return on_three


@pytest.mark.parametrize(
    "specification",
    [
        "async",
        "pool:initial=1MiB | async",
        "async:ipc=true",
        "arena | async",
        "virtual",
        "pool",
        "pool | virtual:rdma=true",
    ],
)
def test_copies_between_devices_work_in_both_directions(
    run: Callable[..., CompletedProcess[str]], specification: str
) -> None:
    run(f"""
first, second = (mr.from_spec({specification!r}, device) for device in (0, 1))
a, b = first.allocate(256), second.allocate(256)
assert [copy(a, b, 0), copy(a, b, 1), copy(b, a, 0), copy(b, a, 1)] == [0] * 4
""")


def test_a_pool_is_closed_to_devices_that_were_left_out(run: Callable[..., CompletedProcess[str]]) -> None:
    """The control: what the tests here do can fail."""
    run("""
first, second = (mr.from_spec("async:peers=none", device) for device in (0, 1))
a, b = first.allocate(256), second.allocate(256)
assert [copy(a, b, 0), copy(a, b, 1), copy(b, a, 0), copy(b, a, 1)] == [1] * 4
""")


@pytest.mark.parametrize("specification", ["virtual", "pool | virtual"])
def test_mapped_memory_is_opened_to_a_device_when_that_is_first_used(
    run: Callable[..., CompletedProcess[str]], specification: str
) -> None:
    run(f"""
memory = mr.from_spec({specification!r}, 0)
early = [memory.allocate(5 << 20) for _ in range(3)]
assert sim.calls("cuMemSetAccess") == sim.calls("cuMemMap")
plain = mr.from_spec("cuda", 1).allocate(256)
assert [copy(plain, block, 1) for block in early] == [0] * 3
late = memory.allocate(5 << 20)
assert copy(plain, late, 1) == 0
driver.set_device(2)
assert [copy(plain, block, 2) for block in (*early, late)] == [0] * 4
""")


def test_pages_that_have_moved_are_open_to_the_devices_in_use(run: Callable[..., CompletedProcess[str]]) -> None:
    run("""
pool = mr.from_spec("pool:max=32MiB", 0)
blocks = [pool.allocate(2 << 20) for _ in range(16)]
plain = mr.from_spec("cuda", 1).allocate(256)
for block in blocks[::2]:
    pool.deallocate(block, 2 << 20)
large = pool.allocate(16 << 20)
assert pool.counters().pages_moved == 8
assert [copy(plain, large + at, 1) for at in range(0, 16 << 20, 2 << 20)] == [0] * 8
""")


@pytest.mark.parametrize("specification", ["virtual:peers=", "pool | virtual:peers="])
def test_mapped_memory_is_open_to_the_devices_that_are_named(
    run: Callable[..., CompletedProcess[str]], specification: str
) -> None:
    run(f"""
plain = [mr.from_spec("cuda", device).allocate(256) for device in range(3)]
for peers, expected in (("all", [0, 0]), ("none", [1, 1]), ("2", [1, 0]), ("0,1", [0, 1]), ("1,2", [0, 0])):
    memory = mr.from_spec({specification!r} + peers, 0)
    block = memory.allocate(256)
    assert [copy(plain[device], block, device) for device in (1, 2)] == expected, peers
    memory.deallocate(block, 256)
assert mr.VirtualMemoryResource(peers=[2, 1]).specification == "virtual:peers=2,1"
""")


def test_mapped_memory_of_devices_that_cannot_reach_one_another_stays_closed(
    run: Callable[..., CompletedProcess[str]],
) -> None:
    run(
        """
pools = [mr.from_spec("pool", device) for device in (0, 1)]
blocks = [pool.allocate(1000) for pool in pools]
assert sim.calls("cuMemSetAccess") == 2
try:
    mr.VirtualMemoryResource(peers=[1])
except ValueError as error:
    assert str(error).startswith("peers: device 1 cannot reach the memory of device 0"), error
else:
    raise AssertionError
""",
        "devices=2,memory=8GiB,peers=0",
    )


def test_a_pool_is_opened_to_a_device_when_that_is_first_used(run: Callable[..., CompletedProcess[str]]) -> None:
    run("""
pool = mr.CudaAsyncMemoryResource()
handle = pool.pool_handle()
assert sim.calls("cuMemPoolSetAccess") == 0 and not is_open(handle, 1)
plain = mr.from_spec("cuda", 1).allocate(256)
assert is_open(handle, 1) and not is_open(handle, 2)
driver.set_device(2)
assert is_open(handle, 2)
later = mr.CudaAsyncMemoryResource()
assert is_open(later.pool_handle(), 0) and is_open(later.pool_handle(), 1)
assert copy(plain, pool.allocate(256), 1) == 0
""")


def test_one_device_alone_costs_no_call(run: Callable[..., CompletedProcess[str]]) -> None:
    run("""
driver.set_device(1)
pool = mr.CudaAsyncMemoryResource()
pool.deallocate(pool.allocate(256), 256)
assert sim.calls("cuMemPoolSetAccess") == 0
""")


def test_devices_that_cannot_reach_one_another_are_left_alone(run: Callable[..., CompletedProcess[str]]) -> None:
    run(
        """
pools = [mr.from_spec("async", device) for device in (0, 1)]
assert mr.CudaAsyncMemoryResource(peers="all").pool_handle()
assert sim.calls("cuMemPoolSetAccess") == 0
try:
    mr.CudaAsyncMemoryResource(peers=[1])
except ValueError as error:
    assert str(error).startswith("peers: device 1 cannot reach the memory of device 0"), error
else:
    raise AssertionError
""",
        "devices=2,memory=8GiB,peers=0",
    )


def test_named_devices_are_those_that_a_pool_is_open_to(run: Callable[..., CompletedProcess[str]]) -> None:
    run("""
driver.set_device(1)
driver.set_device(0)
for peers, expected in ((None, [1]), ("all", [1, 2]), ([2], [2]), ([0, 2], [2]), ((), []), ("none", [])):
    pool = mr.CudaAsyncMemoryResource(peers=peers)
    assert [device for device in (1, 2) if is_open(pool.pool_handle(), device)] == expected, peers
""")


def test_a_pool_that_is_used_again_is_open_to_whom_its_new_owner_names(
    run: Callable[..., CompletedProcess[str]],
) -> None:
    run("""
driver.set_device(1)
driver.set_device(0)
def opened(peers):
    # pool_handle() would share the pool, and a shared one is not used again
    pool = mr.CudaAsyncMemoryResource(peers=peers)
    a, b = pool.allocate(256), [mr.from_spec("cuda", device).allocate(256) for device in (1, 2)]
    answers = [device for device in (1, 2) if copy(b[device - 1], a, device) == 0]
    driver.set_device(0)
    pool.deallocate(a, 256)
    return answers
assert opened("all") == [1, 2]
assert opened("none") == []
assert opened([2]) == [2]
assert opened([1]) == [1]
assert sim.calls("cuMemPoolCreate") == 1
assert opened(None) == [1, 2]
""")


def test_a_view_changes_who_may_use_the_pool_only_where_that_is_asked_for(
    run: Callable[..., CompletedProcess[str]],
) -> None:
    run("""
driver.set_device(1)
driver.set_device(0)
default = ctypes.c_void_p()
assert library.cuDeviceGetDefaultMemPool(ctypes.byref(default), 0) == 0
mr.CudaAsyncViewMemoryResource(default.value)
assert not is_open(default.value, 1)
mr.CudaAsyncViewMemoryResource(default.value, peers=[1])
assert is_open(default.value, 1) and not is_open(default.value, 2)
mr.CudaAsyncViewMemoryResource(default.value, peers="all")
assert is_open(default.value, 2)
""")


def test_a_pool_that_cannot_be_opened_is_reported_and_works(run: Callable[..., CompletedProcess[str]]) -> None:
    finished = run("""
pool = mr.CudaAsyncMemoryResource()
with sim.failing("cuMemPoolSetAccess", error="CUDA_ERROR_NOT_SUPPORTED"):
    driver.set_device(1)
driver.set_device(0)
pool.deallocate(pool.allocate(256), 256)
assert not is_open(pool.pool_handle(), 1)
""")
    assert "the pool of device 0 stays closed to others: cuMemPoolSetAccess failed" in finished.stderr


def test_what_was_asked_for_and_refused_is_an_error(run: Callable[..., CompletedProcess[str]]) -> None:
    run("""
with sim.failing("cuMemPoolSetAccess", error="CUDA_ERROR_NOT_SUPPORTED"):
    try:
        mr.CudaAsyncMemoryResource(peers=[1])
    except cenote.CudaError as error:
        assert error.call == "cuMemPoolSetAccess", error
    else:
        raise AssertionError
assert sim.violations() == []
""")


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("async:peers=all", "async:peers=all"),
        ("async:peers=none", "async:peers=none"),
        ("async:peers=1", "async:peers=1"),
        ("async:peers=0,1,ipc=true", "async:ipc=true,peers=0,1"),
        ("async:peers=0, 1", "async:peers=0,1"),
        ("async", "async"),
    ],
)
def test_peers_are_spelled_as_they_were_given(given: str, spelled: str) -> None:
    made = mr.from_spec(given, 0).specification
    assert made == spelled
    assert mr.from_spec(made, 0).specification == spelled


@pytest.mark.parametrize(
    ("specification", "error", "message"),
    [
        (
            "async:peers=some",
            ValueError,
            "'some' names no devices for 'peers': write all, none, or numbers such as 0,1",
        ),
        ("async:peers=-1", IndexError, "there is no device -1"),
        ("async:peers=1,two", ValueError, "'two' is not a parameter of 'async'"),
        ("async:peers=0,7", IndexError, "there is no device 7"),
        ("async:ipc=true,1", ValueError, "'1' is not a parameter of 'async'"),
        ("pool:peers=1", ValueError, "'peers' is not a parameter of 'pool'"),
    ],
)
def test_wrong_peers_in_a_specification_are_named(specification: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mr.from_spec(specification, 0)


@pytest.mark.parametrize(
    ("peers", "error", "message"),
    [
        ("some", ValueError, "peers must be 'all', 'none' or the numbers of devices, not 'some'"),
        (1, TypeError, "peers must be 'all', 'none' or the numbers of devices, not int"),
        ([1.5], TypeError, None),
        ([True], TypeError, "bool"),
        ([9], IndexError, "there is no device 9"),
    ],
)
def test_wrong_peers_are_named(peers: object, error: type[Exception], message: str | None) -> None:
    with pytest.raises(error, match=message):
        mr.CudaAsyncMemoryResource(peers=peers)  # type: ignore[arg-type]
