"""Tags: what is allocated in a block, on a thread and in a task is counted for the right label."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import cenote
from cenote import mr, registry

KIB = 1024


@pytest.fixture(autouse=True)
def pool() -> Iterator[None]:
    before = mr.set_current_device_resource(mr.from_spec("pool:max=64MiB"))
    yield
    mr.set_current_device_resource(before or mr.CudaMemoryResource())


def held(name: str) -> int:
    used = cenote.usage("tag").get(name)
    return 0 if used is None else used.bytes


def test_allocation_has_the_innermost_tag() -> None:
    with cenote.tag("outer"):
        before = cenote.DeviceBuffer(size=KIB)
        with cenote.tag("inner"):
            inside = cenote.DeviceBuffer(size=2 * KIB)
        after = cenote.DeviceBuffer(size=4 * KIB)
    without = cenote.DeviceBuffer(size=8 * KIB)
    assert (held("outer"), held("inner")) == (5 * KIB, 2 * KIB)
    for buffer in (before, inside, after, without):
        buffer.close()
    assert (held("outer"), held("inner")) == (0, 0)
    assert cenote.usage("tag")["outer"].peak_bytes == 5 * KIB


def test_block_keeps_the_tag_that_it_was_allocated_with() -> None:
    client = registry.Client("tests of tags")
    with cenote.tag("kept"):
        address = client.allocate(KIB)
    with cenote.tag("another"):
        assert held("kept") == KIB
        client.deallocate(address)
    assert (held("kept"), held("another")) == (0, 0)


def test_buffer_that_moves_is_counted_where_it_moves() -> None:
    with cenote.tag("small"):
        buffer = cenote.DeviceBuffer(size=KIB)
    with cenote.tag("large"):
        buffer.resize(16 * KIB)
    assert held("small") == 0
    assert held("large") >= 16 * KIB
    buffer.close()
    assert held("large") == 0


def test_no_tag_inside_an_empty_one() -> None:
    with cenote.tag("around"), cenote.tag(""):
        buffer = cenote.DeviceBuffer(size=KIB)
    assert held("around") == 0
    buffer.close()


def test_tag_ends_with_an_exception() -> None:
    with pytest.raises(KeyError), cenote.tag("raises"):
        raise KeyError
    buffer = cenote.DeviceBuffer(size=KIB)
    assert held("raises") == 0
    buffer.close()


def test_each_task_has_its_own_tag_and_inherits_that_of_who_started_it() -> None:
    client = registry.Client("tests of tags")
    blocks = []

    async def work(name: str) -> None:
        for _ in range(4):
            await asyncio.sleep(0)
            with cenote.tag(name):
                await asyncio.sleep(0)
                blocks.append(client.allocate(KIB))
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        blocks.append(client.allocate(KIB))

    async def everything() -> None:
        with cenote.tag("parent"):
            await asyncio.gather(*(work(f"task {i}") for i in range(3)))

    asyncio.run(everything())
    assert [held(f"task {i}") for i in range(3)] == [4 * KIB] * 3
    assert held("parent") == 3 * KIB
    for block in blocks:
        client.deallocate(block)
    assert held("parent") == 0


def test_thread_begins_without_a_tag() -> None:
    buffers = []
    with cenote.tag("of the main thread"):
        thread = threading.Thread(target=lambda: buffers.append(cenote.DeviceBuffer(size=KIB)))
        thread.start()
        thread.join()
    assert held("of the main thread") == 0


def test_one_tag_is_entered_by_many_threads() -> None:
    shared = cenote.tag("shared")
    client = registry.Client("tests of tags")

    def work() -> None:
        for _ in range(200):
            with shared, shared:
                client.deallocate(client.allocate(KIB))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = cenote.usage("tag")["shared"]
    assert (used.bytes, used.allocations, used.total_allocations) == (0, 0, 800)


def test_tag_decorates_functions_and_coroutines() -> None:
    @cenote.tag("decorated")
    def plain() -> int:
        return cenote.DeviceBuffer(size=KIB).size + held("decorated")

    @cenote.tag("decorated")
    async def coroutine() -> int:
        return plain()

    assert plain() == KIB
    assert asyncio.run(coroutine()) == KIB
    assert plain.__name__ == "plain"
    with pytest.raises(TypeError, match="decorates a function, not int"):
        cenote.tag("decorated")(7)  # type: ignore[type-var]


def test_tag_that_a_generator_ends_out_of_turn_leaves_the_others_alone() -> None:
    def numbers() -> Iterator[int]:
        with cenote.tag("of a generator"):
            yield 1

    generator = numbers()
    next(generator)
    with cenote.tag("outer"):
        generator.close()
        buffer = cenote.DeviceBuffer(size=KIB)
    assert held("outer") == KIB
    buffer.close()
    buffer = cenote.DeviceBuffer(size=KIB)
    assert held("of a generator") == 0
    buffer.close()


def test_tag_is_pickled_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(cenote.tag("pickled"))).name == "pickled"


def test_usage_by_stream_tells_devices_and_streams_apart() -> None:
    on = cenote.Stream()
    client = registry.Client("tests of tags")
    blocks = [client.allocate(KIB, on), client.allocate(KIB), client.allocate(KIB, device=1)]
    by_stream = cenote.usage("stream")
    assert by_stream["device 0, default stream"].bytes == KIB
    assert by_stream["device 1, default stream"].bytes == KIB
    assert [used for name, used in by_stream.items() if "default" not in name] == [registry.Holding(KIB, 1)]
    for block in blocks:
        client.deallocate(block)


MANY_TAGS = """
import cenote
buffers = []
for i in range(1500):
    with cenote.tag(f"step {i}"):
        buffers.append(cenote.DeviceBuffer(size=256))
used = cenote.usage("tag")
assert len(used) == 1023, len(used)
assert used["step 1021"].bytes == 256
assert used["(other tags)"].bytes == 478 * 256, used["(other tags)"]
"""


def test_all_tags_past_the_most_are_one() -> None:
    subprocess.run([sys.executable, "-c", MANY_TAGS], check=True)


@pytest.fixture
def sampled() -> Iterator[None]:
    cenote.sample_sites()
    yield
    cenote.sample_sites(0)


@pytest.mark.usefixtures("sampled")
def test_usage_by_site_names_the_line_of_the_program() -> None:
    client = registry.Client("tests of tags")
    blocks = [client.allocate(KIB) for _ in range(3)]
    line = sys._getframe().f_lineno - 1
    buffer = cenote.DeviceBuffer(size=16 * KIB)
    by_site = cenote.usage("site")
    assert by_site[next(site for site in by_site if f"{Path(__file__).name}:{line} " in site)].bytes == 3 * KIB
    assert f"{Path(__file__).name}:{line + 2} test_usage_by_site" in next(iter(by_site))
    for block in blocks:
        client.deallocate(block)
    assert not any(f":{line} " in site for site in cenote.usage("site"))
    buffer.close()


def test_every_nth_allocation_is_sampled_and_the_rest_is_told_apart() -> None:
    client = registry.Client("tests of tags")
    cenote.sample_sites(10)
    blocks = [client.allocate(KIB) for _ in range(100)]
    by_site = cenote.usage("site")
    assert by_site["(not sampled)"].allocations >= 90
    assert sum(held.allocations for site, held in by_site.items() if site != "(not sampled)") == 10
    cenote.sample_sites(0)
    assert cenote.usage("site").keys() == {"(not sampled)"}
    for block in blocks:
        client.deallocate(block)
