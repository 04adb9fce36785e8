"""Who allocates from the current resources, and what each holds. Documented in `cenote.registry`."""
from dataclasses import dataclass
from libc.stdint cimport uintptr_t
from libcpp.optional cimport optional
from libcpp.vector cimport vector

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport address_argument, bytes_argument, count_argument, device_argument, text_argument
from cenote._core.stream cimport Stream, as_stream, stream_argument

from cenote._core.sharing import BlockHandle
from cenote._core.stream import DEFAULT_STREAM


@dataclass(frozen=True)
class Usage:
    """What one client holds: bytes as requested, and allocations."""

    bytes: int
    peak_bytes: int
    allocations: int
    total_allocations: int


@dataclass(frozen=True)
class Holding:
    """What is held now: bytes as requested, and allocations."""

    bytes: int
    allocations: int


cdef dict usage_of(vector[lib.client_usage] counted):
    cdef lib.client_usage* c
    cdef size_t i
    result = {}
    for i in range(counted.size()):
        c = &counted[i]
        result[c.name.decode(errors="replace")] = Usage(c.bytes, c.peak_bytes, c.allocations, c.total_allocations)
    return result


cdef dict holding_by_stream():
    cdef vector[lib.held_block] blocks
    cdef optional[int] of_all
    cdef size_t i
    with nogil:
        blocks = lib.held_blocks(of_all)
    sums = {}
    for i in range(blocks.size()):
        held = sums.setdefault((blocks[i].device, blocks[i].stream), [0, 0])
        held[0] += blocks[i].bytes
        held[1] += 1
    return {name_of_stream(device, stream): Holding(*held) for (device, stream), held in sorted(sums.items())}


cdef dict holding_by_site(optional[int] device):
    cdef vector[lib.held_block] blocks
    cdef vector[lib.sampled_block] sampled
    cdef size_t i
    with nogil:
        sampled = lib.sampled_blocks()
        blocks = lib.held_blocks(device)
    sites = {sampled[i].address: sampled[i].site.decode(errors="replace") for i in range(sampled.size())}
    sums = {}
    for i in range(blocks.size()):
        held = sums.setdefault(sites.get(blocks[i].address, "(not sampled)"), [0, 0])
        held[0] += blocks[i].bytes
        held[1] += 1
    by_size = sorted(sums.items(), key=lambda item: -item[1][0])
    return {site: Holding(*held) for site, held in by_size}


def holding_at_sites(int device) -> dict[str, Holding]:
    """What each call site holds of a device, as ``usage(by="site")`` tells of all; empty where none was sampled."""
    cdef optional[int] of_one = device
    sites = holding_by_site(of_one)
    return {} if sites.keys() == {"(not sampled)"} else sites


def sample_sites(every=1) -> None:
    """Remember where in the program blocks are allocated, for ``usage(by="site")``.

    A site is the innermost line of the program itself; where that calls a package, the line of the package follows.
    Each sample takes about a microsecond.

    Parameters
    ----------
    every : int, default 1
        Each thread samples one of so many allocations. 0 ends sampling, and forgets what was sampled.

    Raises
    ------
    TypeError
        If `every` is no int.
    OverflowError
        If it is negative.
    """
    cdef size_t count = count_argument("every", every)
    with nogil:
        lib.sample_python_sites(count)


cdef str name_of_stream(int device, stream):
    name = "default stream" if stream == 2**64 - 1 else f"stream {stream}"
    return f"device {device}, {name}"


def usage(by="client") -> dict[str, Usage] | dict[str, Holding]:
    """What is held of the current resources, by each client (PyTorch, CuPy, Numba, cenote's own buffers, …).

    Parameters
    ----------
    by : str, default "client"
        ``"client"``; ``"tag"``, for what the labels of `cenote.tag` hold; ``"stream"``, for the streams that blocks
        were allocated on; or ``"site"``, for the places in the program that `sample_sites` has sampled.

    Returns
    -------
    dict
        By the name of a client or tag, `Usage` over all devices. By that of a stream, which has its device and the
        driver's number of it, or by that of a site, the largest first, `Holding`. What has no tag is in no one's usage
        by tag.

    Raises
    ------
    ValueError
        If `by` is none of these.
    """
    if by == "client":
        return usage_of(lib.usage())
    if by == "tag":
        return usage_of(lib.usage_by_tag())
    if by == "stream":
        return holding_by_stream()
    if by == "site":
        return holding_by_site(optional[int]())
    if not isinstance(by, str):
        raise TypeError(f"by must be a str, not {type(by).__name__}")
    raise ValueError(f"by must be 'client', 'tag', 'stream' or 'site', not {by!r}")


cdef class Client:
    """One who allocates from the current resources under a name, for which `usage` counts.

    A block is always freed to the resource that made it, whatever is current by then.

    Parameters
    ----------
    name : str
        The same name gives the same client.
    """

    cdef int _index
    cdef readonly str name

    def __cinit__(self, *args, **kwargs):
        self._index = -1

    def __init__(self, str name not None):
        self._index = lib.register_client(text_argument("name", name))
        self.name = name

    def __reduce_ex__(self, protocol):
        self.require_made()
        return type(self), (self.name,)

    cdef int require_made(self) except -1:
        if self._index < 0:
            raise RuntimeError(f"this {type(self).__name__} was never initialised: call super().__init__(…)")
        return 0

    def allocate(self, nbytes, stream=DEFAULT_STREAM, device=None) -> int:
        """Allocate `nbytes` from the current resource of `device` (the current one if not given); the address."""
        cdef lib.stream_ref on = stream_argument(stream)
        cdef int where = device_argument(device) if device is not None else 0
        cdef size_t bytes = bytes_argument("nbytes", nbytes)
        cdef void* pointer
        cdef lib.interrupt_scope interrupts
        self.require_made()
        if device is None:
            with nogil:
                where = lib.current_device()
        pointer = lib.client_allocate(self._index, where, bytes, on, lib.interpreter_lock())
        if interrupts.has_interrupt():
            lib.client_deallocate(pointer, on, lib.interpreter_lock())
        interrupts.end()
        return <uintptr_t> pointer

    def deallocate(self, ptr, stream=DEFAULT_STREAM) -> None:
        """Free what `allocate` returned.

        Parameters
        ----------
        ptr : int
            The address.
        stream : Stream or any framework's stream
            A live stream on which the uses of the block are queued or finished. If it is not the one of the
            allocation, the block is reused only after all work that the device has been given by now.

        Notes
        -----
        An address that no client was given, or that was freed already, is reported once on stderr and ignored.
        """
        cdef lib.stream_ref on = stream_argument(stream)
        cdef uintptr_t pointer = address_argument("ptr", ptr)
        cdef lib.interrupt_scope interrupts
        self.require_made()
        lib.client_deallocate(<void*> pointer, on, lib.interpreter_lock())
        interrupts.end()

    def record_stream(self, ptr, stream) -> None:
        """The block is used on `stream` too: it is not reused before the work queued there when it is freed."""
        cdef Stream on = as_stream(stream)
        cdef uintptr_t pointer = address_argument("ptr", ptr)
        self.require_made()
        with nogil:
            lib.client_record_stream(<void*> pointer, on._handle)

    def bytes_on(self, device) -> int:
        """The bytes that the client holds of the current resources of one device. It looks at each of their blocks."""
        cdef int number = device_argument(device)
        cdef vector[lib.held_block] blocks
        cdef optional[int] where
        cdef size_t i, total = 0
        self.require_made()
        lib.check_device(number)
        where = number
        with nogil:
            blocks = lib.held_blocks(where)
        for i in range(blocks.size()):
            if blocks[i].client == self._index:
                total += blocks[i].bytes
        return total

    def share(self, ptr) -> None:
        """The block may be used on any stream until it is freed."""
        cdef uintptr_t pointer = address_argument("ptr", ptr)
        self.require_made()
        with nogil:
            lib.client_share(<void*> pointer)

    def offer(self, ptr, nbytes, stream=DEFAULT_STREAM, device=None) -> BlockHandle:
        """Let other processes of the same user open memory of a block, as `DeviceBuffer.share` does.

        Parameters
        ----------
        ptr : int
            An address in the block. It is not to be freed before `withdraw` has returned True.
        nbytes : int
            How many bytes from there on.
        stream : Stream or any framework's stream
            Work of the other process comes after what is queued on it by now. Offered again, the handle is the same.
        device : int, optional
            The block's; the current one if not given.

        Returns
        -------
        cenote.BlockHandle

        Raises
        ------
        RuntimeError
            Other processes cannot open this memory; the text says which they can.
        """
        cdef Stream on = as_stream(stream)
        cdef bint given = device is not None
        cdef int where = device_argument(device) if given else 0
        cdef uintptr_t pointer = address_argument("ptr", ptr)
        cdef size_t bytes = bytes_argument("nbytes", nbytes)
        cdef lib.string handle
        self.require_made()
        with nogil:
            handle = lib.share_address(where if given else lib.current_device(), <const void*> pointer, bytes,
                                       on._handle)
        return BlockHandle(handle.decode())

    def withdraw(self, ptr) -> bool:
        """Take back what `offer` was given: nobody can open it any more.

        Returns
        -------
        bool
            False while another process has it open: then the block stays, and this is to be asked again.

        Raises
        ------
        ValueError
            It is not on offer.
        """
        cdef uintptr_t pointer = address_argument("ptr", ptr)
        cdef bint is_open
        self.require_made()
        with nogil:
            is_open = lib.unshare_address(<const void*> pointer)
        return not is_open
