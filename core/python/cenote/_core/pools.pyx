"""Resources that hand out parts of what they take from an upstream: one class each. Documented in `cenote.mr`."""
from dataclasses import dataclass

from libc.stdint cimport int64_t, uintptr_t
from libcpp.memory cimport shared_ptr, static_pointer_cast
from libcpp.optional cimport optional
from libcpp.vector cimport vector

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport (
    address_argument,
    count_argument,
    required_size_argument,
    size_argument,
    small_argument,
    text_argument,
)
from cenote._core.memory_resource cimport (
    UpstreamResourceAdaptor,
    become,
    register_class,
    resource_argument,
    upstream_argument,
)


cdef lib.pin_kind pin_kind_argument(str kind) except *:
    return lib.parse_pin_kind(text_argument("kind", kind))


@dataclass(frozen=True)
class Pin:
    """A block of a pool that was pinned: its address and bytes, the kind of the pins, and how many there are."""

    address: int
    nbytes: int
    kind: str
    count: int


@dataclass(frozen=True)
class PoolCounters:
    """How often each path of a pool was taken since it was made.

    Attributes
    ----------
    allocations : int
        All of them; each came from one of the places that follow.
    from_front_cache, from_own_stream, from_ready, from_other_stream, from_upstream, from_reclaim : int
        Allocations from the thread's cache, from blocks of the same stream, from blocks whose work is done, from blocks
        of another stream, from new memory, and from blocks of several streams that were joined.
    waits, events : int
        Waits on the device, and events recorded.
    upstream_allocations, upstream_frees : int
        Pages or chunks that were taken, and given back.
    pages_moved : int
        Pages that were brought from one address to another.
    """

    allocations: int
    from_front_cache: int
    from_own_stream: int
    from_ready: int
    from_other_stream: int
    from_upstream: int
    from_reclaim: int
    waits: int
    events: int
    upstream_allocations: int
    upstream_frees: int
    pages_moved: int


cdef class PoolMemoryResource(UpstreamResourceAdaptor):
    """A pool over any resource: memory is taken as pages or large chunks, and handed out in blocks without the driver.

    Over a `VirtualMemoryResource` the pool maps pages itself: it holds little more than is in use, and gives back any
    page that is free. Over any other upstream it takes chunks.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        Where the memory comes from.
    initial_pool_size : int or str, optional
        Bytes taken at once, a multiple of 256. If not given, half of the device's free memory, as far as a budget
        leaves it; none over a `VirtualMemoryResource`, and over pinned, managed and other memory that the host can use.
    maximum_pool_size : int or str, optional
        Bytes that the pool never exceeds, a multiple of 256; as much as the upstream gives if not given.
    tight : bool, optional
        Whether a pool over a `VirtualMemoryResource` holds at most 3 % more than the most that was in use, instead of
        10 %. Pages are then moved more often.
    idle_seconds : float, optional
        Such a pool gives back what was not used for so long, by a thread of its own. Never, if it is not given.

    Raises
    ------
    RuntimeError
        If a size is no multiple of 256, or the initial one exceeds the maximum; if `tight` or `idle_seconds` is given
        over another upstream.
    ValueError
        If `idle_seconds` is not between 0.001 and a hundred million.
    """

    def __init__(self, upstream_mr, initial_pool_size=None, maximum_pool_size=None, *, bint tight=False,
                 idle_seconds=None):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef optional[size_t] initial = size_argument("initial_pool_size", initial_pool_size)
        cdef optional[size_t] maximum = size_argument("maximum_pool_size", maximum_pool_size)
        cdef lib.pool_spare spare
        spare.is_tight = tight
        if idle_seconds is not None:
            if not isinstance(idle_seconds, (int, float)):
                raise TypeError(f"idle_seconds must be a number of seconds, not {type(idle_seconds).__name__}")
            if not 0.001 <= idle_seconds <= 1e8:
                raise ValueError(f"idle_seconds must be between 0.001 and a hundred million, not {idle_seconds!r}")
            spare.idle = optional[lib.milliseconds](lib.milliseconds(<int64_t>(<double>idle_seconds * 1000)))
        cdef lib.interrupt_scope interrupts  # what it cannot keep it frees
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.pool_memory_resource](
                lib.make_shared[lib.pool_memory_resource](upstream, initial, maximum, spare))
        self.upstream_mr = upstream_mr
        become(self, fresh)
        interrupts.end()

    def pool_size(self) -> int:
        """Bytes taken from the upstream."""
        return (<lib.pool_memory_resource*> self.made()).pool_size()

    def counters(self) -> PoolCounters:
        """How often each path was taken since the pool was made."""
        figures = (<lib.pool_memory_resource*> self.made()).counters()
        return PoolCounters(**figures)

    def pin(self, ptr, str kind not None="exported") -> None:
        """Keep the memory under a block where it is, for somebody beside the pool who knows it.

        Until the last pin is taken back the pages under the block are neither moved nor exchanged nor given back by
        `trim`; over an upstream other than `VirtualMemoryResource`, its chunk is not given back. The block may be freed
        meanwhile, and its bytes are then used by other allocations as ever.

        Parameters
        ----------
        ptr : int
            The address of a block that is in use.
        kind : str
            Says by whom the memory is known: ``"captured"`` by a graph, ``"exported"`` to another process,
            ``"registered"`` with a device that reads and writes by itself, such as a network card, or ``"lent"`` to
            another device or pool.

        Raises
        ------
        ValueError
            If no block in use starts at `ptr`, or there is no such kind.
        """
        cdef const void* pointer = <const void*> address_argument("ptr", ptr)
        cdef lib.pin_kind which = pin_kind_argument(kind)
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            (<lib.pool_memory_resource*> held.get()).pin(pointer, which)
            held.reset()

    def unpin(self, ptr, str kind not None="exported") -> None:
        """Take back one pin, whether the block is in use still or not.

        Parameters
        ----------
        ptr : int
            The address that was pinned.
        kind : str
            As what it was pinned.

        Raises
        ------
        ValueError
            If nothing is pinned there as that kind.
        """
        cdef const void* pointer = <const void*> address_argument("ptr", ptr)
        cdef lib.pin_kind which = pin_kind_argument(kind)
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            (<lib.pool_memory_resource*> held.get()).unpin(pointer, which)
            held.reset()

    def pins(self) -> list[Pin]:
        """Return all pins, in order of address."""
        cdef vector[lib.pool_pin] all_pins
        cdef lib.pool_pin* p
        cdef size_t i
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            all_pins = (<lib.pool_memory_resource*> held.get()).pins()
            held.reset()
        result = []
        for i in range(all_pins.size()):
            p = &all_pins[i]
            result.append(Pin(<uintptr_t> p.address, p.bytes, lib.spell_pin_kind(p.kind).decode(), p.count))
        return result


cdef class ArenaMemoryResource(UpstreamResourceAdaptor):
    """A pool that takes all its memory at once and never asks for more.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        Where the memory comes from.
    arena_size : int or str, optional
        Bytes, rounded down to 256; half of the device's free memory, as far as a budget leaves it, if not given.
    dump_log_on_failure : bool
        Append the map of the arena's blocks to ``cenote_arena_memory_dump.log`` in the current folder whenever an
        allocation fails.

    Raises
    ------
    RuntimeError
        If the size is below 1 MiB.
    """

    def __init__(self, upstream_mr, arena_size=None, bint dump_log_on_failure=False):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef optional[size_t] size = size_argument("arena_size", arena_size)
        cdef lib.interrupt_scope interrupts  # what it cannot keep it frees
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.arena_memory_resource](
                lib.make_shared[lib.arena_memory_resource](upstream, size, dump_log_on_failure))
        self.upstream_mr = upstream_mr
        become(self, fresh)
        interrupts.end()

    def arena_size(self) -> int:
        """Bytes that the arena has."""
        return (<lib.arena_memory_resource*> self.made()).arena_size()


cdef class FixedSizeMemoryResource(UpstreamResourceAdaptor):
    """Blocks of one size: an allocation of up to that size gets a whole block, and nothing can fragment.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        Where the blocks' memory comes from.
    block_size : int or str
        Bytes of a block, rounded up to 256. More than that cannot be allocated: MemoryError.
    blocks_to_preallocate : int
        The memory of so many blocks is taken at once, and as much again whenever they are all in use. With 0, memory
        is taken as needed.

    Raises
    ------
    ValueError
        If `block_size` is 0, or no memory has room for so many blocks.
    """

    def __init__(self, upstream_mr, block_size=1 << 20, blocks_to_preallocate=128):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef size_t size = required_size_argument("block_size", block_size)
        cdef size_t blocks = count_argument("blocks_to_preallocate", blocks_to_preallocate)
        cdef lib.interrupt_scope interrupts  # what it cannot keep it frees
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.fixed_size_memory_resource](
                lib.make_shared[lib.fixed_size_memory_resource](upstream, size, blocks))
        self.upstream_mr = upstream_mr
        become(self, fresh)
        interrupts.end()

    def get_block_size(self) -> int:
        """Bytes of a block."""
        return (<lib.fixed_size_memory_resource*> self.made()).block_size()


cdef class BinningMemoryResource(UpstreamResourceAdaptor):
    """Chooses the resource by the size: each bin serves what fits into it and no smaller bin, the upstream the rest.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        Serves what is larger than every bin, and gives the bins their memory.
    min_size_exponent, max_size_exponent : int
        Bins of ``2**min_size_exponent``, … ``2**max_size_exponent`` bytes, each a `FixedSizeMemoryResource` that takes
        memory when it is first used. No bins if one of them is -1.

    Raises
    ------
    ValueError
        Unless 0 <= `min_size_exponent` <= `max_size_exponent` <= 62.
    """

    cdef tuple _bin_mrs

    def __cinit__(self, *args, **kwargs):
        self._bin_mrs = ()

    def __init__(self, upstream_mr, min_size_exponent=-1, max_size_exponent=-1):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef int least = small_argument("min_size_exponent", min_size_exponent)
        cdef int most = small_argument("max_size_exponent", max_size_exponent)
        cdef lib.interrupt_scope interrupts  # what it cannot keep it frees
        with nogil:
            if least == -1 or most == -1:
                fresh = static_pointer_cast[lib.memory_resource, lib.binning_memory_resource](
                    lib.make_shared[lib.binning_memory_resource](upstream))
            else:
                fresh = static_pointer_cast[lib.memory_resource, lib.binning_memory_resource](
                    lib.make_shared[lib.binning_memory_resource](upstream, least, most))
        self.upstream_mr = upstream_mr
        become(self, fresh)
        interrupts.end()

    def add_bin(self, allocation_size, bin_resource=None) -> None:
        """Serve sizes up to `allocation_size` from `bin_resource`; a bin of that size that exists already is kept.

        Parameters
        ----------
        allocation_size : int or str
            The largest size of the bin in bytes, rounded up to 256.
        bin_resource : DeviceMemoryResource, optional
            A `FixedSizeMemoryResource` over the upstream, of blocks of that size, if not given.

        Raises
        ------
        ValueError
            If the size is 0, or the resource another device's, or one that stands on this one.
        RuntimeError
            If blocks are in use whose sizes the bin would take over: they could not be freed any more.
        """
        cdef size_t size = required_size_argument("allocation_size", allocation_size)
        cdef shared_ptr[lib.memory_resource] resource
        if bin_resource is not None:
            resource = resource_argument("bin_resource", bin_resource)
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            (<lib.binning_memory_resource*> held.get()).add_bin(size, resource)
            held.reset()
        if bin_resource is None:
            if self.upstream_mr._standing.get() != NULL:
                self._leases.set_users(self._leases.users_of_first())
            return
        self._bin_mrs = (*self._bin_mrs, bin_resource)
        self.hold_lease(resource, bin_resource, resource.use_count() - 1)

    @property
    def bin_mrs(self) -> list:
        """The resources that `add_bin` was given, in that order."""
        self.made()
        return list(self._bin_mrs)


register_class("pool", PoolMemoryResource)
register_class("arena", ArenaMemoryResource)
register_class("fixed_size", FixedSizeMemoryResource)
register_class("binning", BinningMemoryResource)
