"""A reference cycle through a resource's own Python functions is collected, whatever stands on the resource.

Its functions are methods that need their object whole: what stands on the resource gives its memory back before Python
takes anything apart.
"""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import cenote
from cenote import mr, registry, sim

MIB = 1024**2


def live() -> tuple[int, ...]:
    """What the simulated device has, once its work is done; streams and events of cenote's own are made once."""
    cenote.driver.synchronize(0)
    sim.drain()
    there = sim.live()
    return there.allocations, there.device_bytes, there.pools


class Owner:
    """A resource whose functions are its own methods, and whatever is kept beside it."""

    def __init__(self, stand: Callable[[Owner], Any]) -> None:
        self.upstream = mr.from_spec("pool:initial=4MiB")
        self.mr = mr.CallbackMemoryResource(self.allocate, self.deallocate)
        self.kept = stand(self)

    def allocate(self, size: int, stream: cenote.Stream) -> int:
        return self.upstream.allocate(size, stream)

    def deallocate(self, ptr: int, size: int, stream: cenote.Stream) -> None:
        self.upstream.deallocate(ptr, size, stream)

    def help(self, nbytes: int) -> bool:
        return self.upstream is None


def buffer(resource: mr.DeviceMemoryResource, size: int = 100) -> cenote.DeviceBuffer:
    return cenote.DeviceBuffer(size=size, mr=resource)


def used(resource: mr.DeviceMemoryResource) -> list[Any]:
    """A resource, with a buffer and another adaptor that are kept with it, and memory that was freed into it."""
    resource.deallocate(resource.allocate(100), 100)
    counted = mr.StatisticsResourceAdaptor(resource)
    return [resource, buffer(resource), buffer(counted), counted]


def current_for_a_while(owner: Owner) -> list[Any]:
    before = mr.get_current_device_resource()
    mr.set_current_device_resource(mr.PoolMemoryResource(owner.mr, 0))
    kept = [cenote.DeviceBuffer(size=100), cenote.DeviceBuffer(size=100)]
    kept[1].resize(1000)
    mr.set_current_device_resource(before)
    return kept


def bins(owner: Owner) -> list[Any]:
    binning = mr.BinningMemoryResource(owner.mr, 8, 10)
    binning.add_bin(4096)
    return used(binning)


def bin_of_its_own(owner: Owner) -> list[Any]:
    binning = mr.BinningMemoryResource(mr.CudaMemoryResource())
    binning.add_bin(4096, owner.mr)
    return used(binning)


def made_anew(owner: Owner) -> list[Any]:
    twice = buffer(owner.mr)
    twice.__init__(size=200, mr=owner.mr)  # type: ignore[misc]
    elsewhere = buffer(owner.mr)
    elsewhere.__init__(size=200, mr=mr.CudaMemoryResource())  # type: ignore[misc]
    counted = mr.StatisticsResourceAdaptor(mr.CudaMemoryResource())
    counted.__init__(owner.mr)  # type: ignore[misc]
    return [twice, elsewhere, *used(counted)]


def closed(owner: Owner) -> cenote.DeviceBuffer:
    made = buffer(owner.mr)
    made.close()
    return made


STANDS: dict[str, Callable[[Owner], Any]] = {
    "nothing": lambda owner: None,
    "buffer": lambda owner: buffer(owner.mr),
    "buffers": lambda owner: [buffer(owner.mr), buffer(owner.mr), buffer(owner.mr)],
    "closed buffer": closed,
    "made anew": made_anew,
    "copies": lambda owner: cenote.DeviceBuffer.to_device(b"bytes").copy(),
    "aligned": lambda owner: used(mr.AlignedResourceAdaptor(owner.mr)),
    "failure callback": lambda owner: used(mr.FailureCallbackResourceAdaptor(owner.mr, owner.help)),
    "failure callback alone": lambda owner: used(
        mr.FailureCallbackResourceAdaptor(mr.PoolMemoryResource(mr.CudaMemoryResource(), "4MiB"), owner.help)
    ),
    "guard": lambda owner: used(mr.GuardResourceAdaptor(owner.mr)),
    "limiting": lambda owner: used(mr.LimitingResourceAdaptor(owner.mr, "1GiB")),
    "prefetch": lambda owner: used(mr.PrefetchResourceAdaptor(owner.mr)),
    "statistics": lambda owner: used(mr.StatisticsResourceAdaptor(owner.mr)),
    "thread safe": lambda owner: used(mr.ThreadSafeResourceAdaptor(owner.mr)),
    "tracking": lambda owner: used(mr.TrackingResourceAdaptor(owner.mr)),
    "pool": lambda owner: used(mr.PoolMemoryResource(owner.mr, 0)),
    "initial pool": lambda owner: used(mr.PoolMemoryResource(owner.mr, "1MiB")),
    "arena": lambda owner: used(mr.ArenaMemoryResource(owner.mr, MIB)),
    "fixed size": lambda owner: used(mr.FixedSizeMemoryResource(owner.mr, 4096, 8)),
    "binning": bins,
    "bin": bin_of_its_own,
    "deep": lambda owner: used(
        mr.ThreadSafeResourceAdaptor(mr.PoolMemoryResource(mr.LimitingResourceAdaptor(owner.mr, "1GiB"), 0))
    ),
    "was current": current_for_a_while,
}


@pytest.mark.parametrize("kind", STANDS)
def test_a_cycle_through_functions_is_freed_with_all_that_stands_on_the_resource(
    kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(report.exc_value))
    before = live()
    owners = [weakref.ref(Owner(STANDS[kind])) for _ in range(3)]
    gc.collect()
    assert [owner() for owner in owners] == [None] * 3
    assert live() == before
    assert reported == []
    assert capfd.readouterr().err == ""


def test_a_subclass_that_is_its_own_functions_is_freed() -> None:
    class Own(mr.CallbackMemoryResource):
        def __init__(self) -> None:
            self.upstream = mr.from_spec("pool:initial=4MiB")
            super().__init__(self.take, self.give)
            self.scratch = buffer(self)

        def take(self, size: int, stream: cenote.Stream) -> int:
            return self.upstream.allocate(size, stream)

        def give(self, ptr: int, size: int, stream: cenote.Stream) -> None:
            self.upstream.deallocate(ptr, size, stream)

    before = live()
    own = weakref.ref(Own())
    gc.collect()
    assert own() is None
    assert live() == before


def test_functions_are_freed_in_a_cycle_of_closures() -> None:
    def make() -> weakref.ref[Any]:
        upstream = mr.from_spec("pool:initial=4MiB")
        kept: list[Any] = []
        resource = mr.CallbackMemoryResource(
            lambda size, stream: upstream.allocate(size, stream) if kept is not None else 0,
            lambda ptr, size, stream: upstream.deallocate(ptr, size, stream),
        )
        kept.extend([buffer(mr.StatisticsResourceAdaptor(resource)), resource])
        return weakref.ref(resource)

    before = live()
    resource = make()
    gc.collect()
    assert resource() is None
    assert live() == before


# Who may hold a resource from outside of the cycle; and what lets go of it again.
def by_the_registry(resource: mr.DeviceMemoryResource) -> Callable[[], Any]:
    before = mr.get_current_device_resource()
    mr.set_current_device_resource(resource)
    return lambda: mr.set_current_device_resource(before)


def by_a_block(resource: mr.DeviceMemoryResource) -> Callable[[], Any]:
    let_go = by_the_registry(resource)
    client = registry.Client("test")
    block = client.allocate(100)
    let_go()
    return lambda: client.deallocate(block)


def by_a_buffer(resource: mr.DeviceMemoryResource) -> Callable[[], Any]:
    kept = [buffer(resource)]
    return kept.clear


def by_an_adaptor(resource: mr.DeviceMemoryResource) -> Callable[[], Any]:
    kept = [mr.TrackingResourceAdaptor(resource)]
    return kept.clear


@pytest.mark.parametrize("hold", [by_the_registry, by_a_block, by_a_buffer, by_an_adaptor])
@pytest.mark.parametrize("place", ["callback", "adaptor", "pool"])
def test_what_is_held_from_outside_of_the_cycle_is_not_taken_apart(
    hold: Callable[[mr.DeviceMemoryResource], Callable[[], Any]], place: str
) -> None:
    before = live()
    owner = Owner(lambda owner: [mr.StatisticsResourceAdaptor(owner.mr), mr.PoolMemoryResource(owner.mr, 0)])
    resources = {"callback": owner.mr, "adaptor": owner.kept[0], "pool": owner.kept[1]}
    let_go = hold(resources[place])
    seen = weakref.ref(owner)
    del owner, resources
    for _ in range(3):
        gc.collect()
    assert seen() is not None
    if hold is by_the_registry:
        for _ in range(2):
            cenote.DeviceBuffer(size=100)
            gc.collect()
    let_go()
    gc.collect()
    assert seen() is None
    assert live() == before


def test_the_object_of_a_resource_lives_as_long_as_the_resource_is_current() -> None:
    owner = Owner(lambda owner: None)
    number = id(owner.mr)
    mr.set_current_device_resource(owner.mr)
    del owner
    gc.collect()
    current = mr.get_current_device_resource()
    assert isinstance(current, mr.CallbackMemoryResource) and id(current) == number
    assert current.allocate_func.__name__ == "allocate"


def test_a_resource_that_is_made_anew_leaves_what_stands_on_the_first_one_alone() -> None:
    owner = Owner(lambda owner: [buffer(owner.mr), mr.StatisticsResourceAdaptor(owner.mr)])
    owner.mr.__init__(owner.allocate, owner.deallocate)  # type: ignore[misc]
    in_use = owner.upstream.in_use()
    assert in_use == 256
    owner.kept[1].deallocate(owner.kept[1].allocate(100), 100)
    owner.kept.clear()
    assert owner.upstream.in_use() == 0


def test_a_finalizer_finds_what_has_ended_in_order_and_closed() -> None:
    seen: list[str] = []

    class Late:
        def __init__(self, owner: Owner) -> None:
            self.owner = owner

        def __del__(self) -> None:
            for made in self.owner.kept:
                try:
                    seen.append(str(made.allocate(0) if isinstance(made, mr.DeviceMemoryResource) else made.size))
                except RuntimeError as error:
                    seen.append(str(error))

    def stand(owner: Owner) -> list[Any]:
        pool = mr.PoolMemoryResource(owner.mr, 0)
        return [buffer(pool), pool]

    before = live()
    owner = Owner(stand)
    owner.late = Late(owner)  # type: ignore[attr-defined]
    del owner
    gc.collect()
    assert len(seen) == 2
    assert live() == before


def test_other_threads_may_use_a_resource_while_cycles_are_collected() -> None:
    shared = Owner(lambda owner: None)
    stack = mr.ThreadSafeResourceAdaptor(mr.StatisticsResourceAdaptor(shared.mr))
    failures: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            while not done.is_set():
                made = [buffer(stack) for _ in range(4)]
                stack.trim()
                stack.state()
                stack.check()
                made[0].resize(1000)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    owners = []
    for _ in range(30):
        owners.append(weakref.ref(Owner(lambda owner: used(mr.PoolMemoryResource(owner.mr, 0)))))
        gc.collect()
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [owner() for owner in owners if owner() is not None] == []
    assert shared.upstream.in_use() == 0
    stack.deallocate(stack.allocate(100), 100)
