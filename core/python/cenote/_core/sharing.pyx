"""Blocks that other processes open: what ``DeviceBuffer.share`` and `open_shared` are made of."""
from libcpp.memory cimport shared_ptr, static_pointer_cast

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport text_argument
from cenote._core.buffer_memory cimport BufferMemory, Share
from cenote._core.libcenote cimport PyObject
from cenote._core.memory_resource cimport wrap
from cenote._core.stream cimport Stream


class BlockHandle:
    """What another process opens a shared block by; made by ``DeviceBuffer.share``.

    It is pickled, and ``str`` of it is a text without blanks, which ``BlockHandle(text)`` takes.

    Parameters
    ----------
    text : str
        What ``str`` of another handle is. It is looked at when the block is opened.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"the text of a handle must be str, not {type(text).__name__}")
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"BlockHandle({self._text!r})"

    def __eq__(self, other) -> bool:
        return self._text == other._text if isinstance(other, BlockHandle) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self):
        return BlockHandle, (self._text,)


cdef object share_of(object sharing, Stream on):
    """The handle of a DeviceBuffer's memory, whose contents are there after the work on `on`."""
    cdef BufferMemory buffer = sharing
    cdef lib.device_buffer* memory = buffer._begin()
    cdef Share share = buffer._share
    cdef Share made
    cdef lib.block_offer* offer = NULL
    try:
        if memory.size() == 0:
            raise ValueError("an empty buffer cannot be shared")
        with nogil:
            memory.begin_use(on._handle)
        if share is not None and share._offer.get() != NULL:
            offer = share._offer.get()
            if offer.address() == memory.data() and offer.bytes() == memory.size():
                with nogil:
                    offer.share_again(on._handle)
                buffer._was_used_on(on)
                return share._handle
        made = Share()
        made._buffer = <PyObject*> buffer
        hold = lib.python_hold(made)
        with nogil:
            offer = lib.new_block_offer(memory.data(), memory.size(), on._handle, memory.resource(), hold)
        made._offer.reset(offer)
        made._handle = BlockHandle(offer.handle().decode())
        if share is not None:
            share.forget()
        buffer._share = made
        buffer._was_used_on(on)
        return made._handle
    finally:
        buffer._users -= 1


cdef object open_into(object opening, object handle, Stream on):
    """Give a new DeviceBuffer the block of a handle."""
    cdef BufferMemory buffer = opening
    if not isinstance(handle, (BlockHandle, str)):
        raise TypeError(f"a handle must be a BlockHandle or its text, not {type(handle).__name__}")
    cdef lib.string text = text_argument("handle", str(handle))
    cdef lib.interrupt_scope interrupts
    cdef shared_ptr[lib.opened_memory_resource] opened
    cdef shared_ptr[lib.memory_resource] resource
    with nogil:
        opened = lib.open_memory_resource(text)
        resource = static_pointer_cast[lib.memory_resource, lib.opened_memory_resource](opened)
        buffer._buffer.emplace(opened.get().bytes(), on._handle, resource)
        opened.reset()
    buffer._stream = on
    buffer._mr = wrap(resource)
    interrupts.end()
    return buffer
