"""DeviceBuffer: untyped device memory that frees itself. Documented in `cenote` and `cenote.device_buffer`."""
from pickle import PickleBuffer
from sys import intern

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.operator cimport dereference
from libc.stdint cimport uintptr_t
from libcpp.memory cimport make_unique, unique_ptr
from libcpp.utility cimport move

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport bytes_argument, device_argument
from cenote._core.buffer_memory cimport BufferMemory, finish, wait_for
from cenote._core.device_array cimport device_array
from cenote._core.dlpack cimport dl_capsule_of, dl_device_of
from cenote._core.host_memory cimport readable_argument, writable_argument
from cenote._core.libcenote cimport PyObject, PyTypeObject, PyVectorcall_NARGS, vectorcallfunc
from cenote._core.memory_resource cimport DeviceMemoryResource, wrap
from cenote._core.sharing cimport open_into, share_of
from cenote._core.stream cimport Stream, as_stream

from cenote._core.stream import DEFAULT_STREAM

cdef object _size_keyword = intern("size"), _stream_keyword = intern("stream"), _mr_keyword = intern("mr")
cdef char* _unsigned_byte = b"B"  # the buffer protocol's word for it


@cython.no_gc_clear  # the stream and the resource must outlive the memory, also in a reference cycle
cdef class DeviceBuffer(BufferMemory):
    """Device memory of a resource, freed in stream order when the object dies, or is closed.

    Parameters
    ----------
    ptr : int
        Address in host or device memory to copy `size` bytes from; 0 leaves the memory uninitialised.
    size : int
        Size in bytes.
    stream : Stream or any framework's stream
        Where the memory is allocated and copied. On the default stream the copy is finished on return, on any other
        it is only queued.
    mr : DeviceMemoryResource, optional
        Where the memory comes from; the current device's resource if not given.

    Raises
    ------
    OutOfMemoryError
        The resource has no memory to give.
    OverflowError
        `ptr` or `size` is negative, or 2^64 or more.

    Notes
    -----
    Array libraries see the buffer as a row of unsigned bytes: by ``__cuda_array_interface__``, by DLPack, and where the
    host can reach the memory (managed and pinned memory) by the buffer protocol as well: ``memoryview(buffer)``,
    ``numpy.asarray(buffer)``. While a view or a capsule of it lives the memory stays where it is: `resize`, `reserve`,
    `shrink_to_fit` and `close` raise BufferError.

    ``with DeviceBuffer(size=…) as buffer:`` closes it at the end of the block.
    """
    def __init__(self, *, ptr=0, size=0, stream=DEFAULT_STREAM, mr=None):
        cdef DeviceBuffer made = DeviceBuffer.__new__(DeviceBuffer)
        made._make(ptr, size, stream, mr)
        self._require_unused()  # only now: meanwhile others ran
        self._swap(made)  # which frees what was here

    @property
    def ptr(self) -> int:
        """The address; 0 if there is no memory."""
        return <uintptr_t> self.made().data()

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.made().size()

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.made().size()

    def capacity(self) -> int:
        """Bytes that are allocated; at least `size`."""
        return self.made().capacity()

    @property
    def mr(self) -> DeviceMemoryResource:
        """The resource that the memory came from and goes back to."""
        self.made()
        if self._mr is None:
            self._mr = wrap(self.made().resource())
        return self._mr

    @property
    def stream(self) -> Stream:
        """The stream that the buffer was used on last, and will be freed on."""
        self.made()
        return self._stream

    @property
    def device(self) -> int:
        """The device whose memory this is."""
        return self.made().device()

    def __len__(self) -> int:
        return self.made().size()

    def __sizeof__(self) -> int:
        return self.made().size()

    def __repr__(self) -> str:
        return f"<cenote.DeviceBuffer of {self.size} bytes at {self.ptr:#x} on device {self.device}>"

    @property
    def __cuda_array_interface__(self) -> dict:
        """The protocol (version 3) by which array libraries see the buffer as unsigned bytes, shape ``(size,)``."""
        cdef Stream on = self._stream_here()
        return {
            "data": (<uintptr_t> self._address(), False),
            "shape": (self.size,),
            "strides": None,
            "typestr": "|u1",
            "version": 3,
            "stream": on.handle or 1,  # the protocol forbids 0; 1 is the legacy default stream
        }

    def __getbuffer__(self, Py_buffer* view, int flags):
        """The buffer protocol, where the host can reach the memory; waits for the buffer's stream first."""
        self.made()
        if not self.mr.is_host_accessible:
            raise BufferError(
                f"the host cannot reach memory of device {self.device}: copy it with tobytes() or copy_to_host(), or "
                "take the buffer from managed or pinned memory"
            )
        self._synchronize()
        self._exports += 1
        view.obj = self
        view.buf = self.made().data()
        view.len = self.made().size()
        view.itemsize = 1
        view.readonly = False
        view.ndim = 1
        view.format = _unsigned_byte if flags & PyBUF_FORMAT == PyBUF_FORMAT else NULL
        view.shape = &view.len if flags & PyBUF_ND == PyBUF_ND else NULL
        view.strides = &view.itemsize if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
        view.suboffsets = NULL
        view.internal = NULL

    def __releasebuffer__(self, Py_buffer* view):
        self._exports -= 1

    def __array__(self, dtype=None, copy=None):
        """A NumPy array of the memory where the host can reach it; TypeError, as other device arrays give, if not."""
        try:
            view = memoryview(self)
        except BufferError as error:
            raise TypeError(str(error)) from None
        import numpy as np

        return np.array(view, dtype=dtype) if copy else np.asarray(view, dtype=dtype)

    def __dlpack_device__(self) -> tuple[int, int]:
        """What DLPack calls the memory: a device type (2 device, 3 pinned, 13 managed, 1 other host) and a number."""
        return dl_device_of(self)

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        """Hand the buffer to an array library as a DLPack capsule, as the Python array API standard says.

        Parameters
        ----------
        stream : int or any framework's stream, optional
            The consumer's stream; work queued on it from now on runs after the buffer's own, and the host does not
            wait. 1 is the legacy default stream, 2 the per-thread one, -1 asks for no order. Without one it is the
            legacy default stream; where the consumer may be the host (pinned and managed memory) the data is ready on
            return.
        max_version : tuple of int, optional
            The latest version of DLPack that the consumer knows. The capsule is a versioned one from (1, 0) on.
        dl_device : tuple of int, optional
            The device type and number that the consumer wants: the buffer's own; (1, 0), the host, where device memory
            is copied to; (2, device) for any memory that the device can reach.
        copy : bool, optional
            Whether to copy: always, never, or only where necessary.

        Raises
        ------
        BufferError
            If there is no way to that device, or none without a copy.
        ValueError
            If `stream` is 0, which the standard forbids, or less than -1; if `max_version` or `dl_device` is no pair.
        """
        return dl_capsule_of(self, stream, max_version, dl_device, copy)

    @classmethod
    def to_device(cls, b, stream=DEFAULT_STREAM) -> DeviceBuffer:
        """A new buffer with the bytes of `b`, a contiguous buffer of unsigned bytes such as ``bytes``.

        On another stream than the default one keep pinned memory as it is until the copy is done; other memory of the
        host may be changed at once.
        """
        cdef const unsigned char[::1] host = readable_argument("b", b)
        cdef uintptr_t source = <uintptr_t> &host[0] if host.shape[0] != 0 else 0
        return cls(ptr=source, size=host.shape[0], stream=stream)

    def copy_to_host(self, ary=None, stream=DEFAULT_STREAM):
        """Copy the bytes to the host.

        Parameters
        ----------
        ary : writable buffer of unsigned bytes, optional
            Where to; its first `size` bytes are written. A new ``numpy.uint8`` array of shape ``(size,)`` if not given.
        stream : Stream or any framework's stream
            On the default stream the copy is finished on return; on any other, synchronise it before reading.

        Raises
        ------
        ValueError
            If `ary` is too small.
        """
        cdef Stream on = as_stream(stream)
        cdef unsigned char[::1] target
        cdef lib.device_buffer* buffer = self._begin()
        try:
            size = buffer.size()
            if ary is None:
                import numpy as np

                ary = np.empty(size, dtype="u1")
            target = writable_argument("ary", ary)
            if <size_t> target.shape[0] < buffer.size():
                raise ValueError(f"the host buffer is too small. Need space for {size} bytes, not {target.shape[0]}")
            if target.shape[0] != 0:
                self._copy_out(buffer, <void*> &target[0], on)
        finally:
            self._users -= 1
        finish(on, buffer.device())
        return ary

    def copy_from_host(self, ary, stream=DEFAULT_STREAM) -> None:
        """Overwrite the first bytes with those of `ary`; ValueError if they are more than `size`."""
        cdef Stream on = as_stream(stream)
        cdef const unsigned char[::1] host = readable_argument("ary", ary)
        self._copy_in(<const void*> &host[0] if host.shape[0] != 0 else NULL, host.shape[0], on)

    def copy_from_device(self, cuda_ary, stream=DEFAULT_STREAM) -> None:
        """Overwrite the first bytes with those of a one-dimensional contiguous array in device memory.

        `cuda_ary` is any object with ``__cuda_array_interface__``; ValueError if it has none or a malformed one, is not
        contiguous, is masked, or has more bytes than the buffer. The copy waits, on the device, for the stream that it
        names, and that stream for the copy.
        """
        cdef Stream on = as_stream(stream)
        address, count, written_on = device_array(cuda_ary)
        self._check_room(count)  # which may be more than a size_t
        self._copy_in(<const void*> <uintptr_t> address, count, on,
                      cuda_ary if isinstance(cuda_ary, DeviceBuffer) else None, written_on)

    def tobytes(self, stream=DEFAULT_STREAM) -> bytes:
        """The contents as ``bytes``."""
        cdef Stream on = as_stream(stream)
        cdef lib.device_buffer* buffer = self._begin()
        try:
            copied = PyBytes_FromStringAndSize(NULL, buffer.size())
            self._copy_out(buffer, PyBytes_AS_STRING(copied), on)
        finally:
            self._users -= 1
        wait_for(on, buffer.device())
        return copied

    def __bytes__(self) -> bytes:
        return self.tobytes(self._stream_here())

    def __reduce_ex__(self, protocol):
        """Pickle the bytes, as the buffer's own stream leaves them; protocol 5 hands them over out of band.

        What is unpickled lies on the current device, in its current resource.
        """
        contents = self.tobytes(self._stream_here())
        attributes = getattr(self, "__dict__", None) or None
        return rebuild, (type(self), PickleBuffer(contents) if protocol >= 5 else contents), attributes

    def copy(self) -> DeviceBuffer:
        """A buffer of its own with the same bytes, from the same resource, on the same stream."""
        cdef Stream on = self._stream_here()
        copied = type(self).__new__(type(self))  # a class derived from this one may have an __init__ of its own
        cdef lib.device_buffer* buffer = self._begin()
        try:
            with nogil:
                buffer.begin_use(on._handle)
            DeviceBuffer.__init__(copied, ptr=self.ptr, size=self.size, stream=on, mr=self.mr)
            self._was_used_on(on)
        finally:
            self._users -= 1
        return copied

    def __copy__(self) -> DeviceBuffer:
        return self.copy()

    def __deepcopy__(self, memo) -> DeviceBuffer:
        return self.copy()

    def share(self, stream=None) -> BlockHandle:
        """Offer the memory to other processes of this user, which open it with `open_shared`, without a copy.

        While one of them has it open the memory stays where it is, also when this object dies: until the other process
        lets go or ends. A process that opens it after this object has died gets an error.

        Parameters
        ----------
        stream : Stream or any framework's stream, optional
            Work that another process queues on the memory comes after what is queued here by now; the buffer's own
            stream if not given. What is written later is to be announced by sharing again, which returns the same
            handle.

        Returns
        -------
        BlockHandle
            It is pickled, and ``str`` of it is a text.

        Raises
        ------
        RuntimeError
            Other processes cannot map this memory; it says what to do.
        ValueError
            The buffer is empty.
        """
        return share_of(self, self._stream_here() if stream is None else as_stream(stream))

    def prefetch(self, device=None, stream=None) -> None:
        """Move the contents to where they are wanted next; does nothing for memory that does not move.

        Parameters
        ----------
        device : int, optional
            A device, or -1 for the host; the current device if not given.
        stream : Stream or any framework's stream, optional
            Where the move is queued; the buffer's own stream if not given.

        Raises
        ------
        IndexError
            If there is no such device.
        """
        cdef Stream on = self._stream_here() if stream is None else as_stream(stream)
        cdef bint given = device is not None
        cdef int location = device_argument(device) if given else 0
        cdef lib.device_buffer* buffer = self._begin()
        try:
            with nogil:
                if not given:
                    location = lib.current_device()
                elif location != lib.host_location:
                    lib.check_device(location)
                buffer.begin_use(on._handle)
                lib.prefetch_async(buffer.data(), buffer.size(), location, on._handle, buffer.device())
            self._was_used_on(on)
        finally:
            self._users -= 1

    def reserve(self, new_capacity, stream=DEFAULT_STREAM) -> None:
        """Make room for `new_capacity` bytes; the contents are kept.

        `stream` is made to wait, on the device, for the buffer's own, and becomes it; so with `resize` and
        `shrink_to_fit`.
        """
        cdef Stream on = as_stream(stream)
        cdef size_t capacity = bytes_argument("new_capacity", new_capacity)
        cdef lib.interrupt_scope interrupts
        cdef lib.device_buffer* buffer = self._begin_move()
        try:
            self._reserve(buffer, capacity, on)
        finally:
            self._is_moving = False
        interrupts.end()

    def resize(self, new_size, stream=DEFAULT_STREAM) -> None:
        """Change the size; the contents are kept as far as they fit, new bytes are not initialised.

        A smaller size keeps the memory: `shrink_to_fit` gives it back.
        """
        cdef Stream on = as_stream(stream)
        cdef size_t size = bytes_argument("new_size", new_size)
        cdef lib.interrupt_scope interrupts
        cdef lib.device_buffer* buffer = self._begin_move()
        try:
            self._reserve(buffer, size, on)
            buffer.resize(size, on._handle)
        finally:
            self._is_moving = False
        interrupts.end()

    def shrink_to_fit(self, stream=DEFAULT_STREAM) -> None:
        """Move the contents into memory of just their size; nothing happens if they have it."""
        cdef Stream on = as_stream(stream)
        cdef lib.interrupt_scope interrupts
        cdef lib.device_buffer* buffer = self._begin_move()
        try:
            if buffer.size() < buffer.capacity():
                self._move(buffer, buffer.size(), on)
            else:
                self._follow(buffer, on)
        finally:
            self._is_moving = False
        interrupts.end()

    def close(self) -> None:
        """Free the memory now, in the order of the buffer's stream.

        An empty buffer is left, with the same resource and stream; `resize` gives it memory again.
        """
        cdef lib.interrupt_scope interrupts
        cdef lib.optional_device_buffer memory
        self.made()
        self._require_unused()
        memory.emplace(move(dereference(self._buffer)))  # nobody else sees it from here on
        self._count()
        self._free(&dereference(memory))
        interrupts.end()

    cdef unique_ptr[lib.device_buffer] release(self) except *:
        """Hand the memory over to C++. An empty buffer is left, as after `close`.

        Waits for the device's work where others used the memory on streams of theirs, which C++ would not know of.
        """
        cdef unique_ptr[lib.device_buffer] released
        self.made()
        self._require_unused()
        if self._is_shared or self._stream.may_be_gone():
            with nogil:
                lib.synchronize_device(dereference(self._buffer).device())
            self._require_unused()  # again: meanwhile others ran
            if self._stream.may_be_gone():
                dereference(self._buffer).set_stream(lib.stream_ref())
        if self._share is not None:
            self._share.forget()
        released = make_unique[lib.device_buffer](move(dereference(self._buffer)))
        self._is_shared = False
        self._count()
        return move(released)

    @staticmethod
    cdef DeviceBuffer adopt(unique_ptr[lib.device_buffer] memory):
        """A buffer with the memory of one of C++, on its stream; ValueError for none."""
        if memory.get() == NULL:
            raise ValueError("there is no device_buffer to adopt")
        cdef DeviceBuffer made = DeviceBuffer.__new__(DeviceBuffer)
        made._stream = as_stream(<uintptr_t> memory.get().stream().value())
        made._buffer.emplace(move(dereference(memory)))
        made._mr = wrap(made.made().resource())
        made._count()
        return made

    def __enter__(self) -> DeviceBuffer:
        self.made()
        return self

    def __exit__(self, *_) -> None:
        self.close()


# How Python calls the class itself, though not one that is derived from it: without the tuple and the dictionary that
# it makes for __init__ otherwise, a quarter of what a small buffer would cost.
cdef object call_class(PyObject* cls, PyObject** arguments, size_t flags, PyObject* names):
    cdef object ptr = 0, size = 0, stream = DEFAULT_STREAM, mr = None
    cdef tuple keywords = <tuple> names if names != NULL else ()
    cdef Py_ssize_t i
    cdef bint is_plain = PyVectorcall_NARGS(flags) == 0
    for i in range(len(keywords)):
        name = keywords[i]
        if name is _size_keyword:
            size = <object> arguments[i]
        elif name is _stream_keyword:
            stream = <object> arguments[i]
        elif name is _mr_keyword:
            mr = <object> arguments[i]
        else:
            is_plain = False
    if not is_plain:
        return call_class_in_full(arguments, PyVectorcall_NARGS(flags), keywords)
    cdef DeviceBuffer made = DeviceBuffer.__new__(DeviceBuffer)
    made._make(ptr, size, stream, mr)
    return made


cdef object call_class_in_full(PyObject** arguments, Py_ssize_t positional, tuple keywords):
    """As Python does by itself, with what it says of arguments that are wrong."""
    given = tuple([<object> arguments[i] for i in range(positional)])
    named = {name: <object> arguments[positional + i] for i, name in enumerate(keywords)}
    return type.__call__(DeviceBuffer, *given, **named)


(<PyTypeObject*> DeviceBuffer).tp_vectorcall = <vectorcallfunc> call_class


def rebuild(cls, contents) -> DeviceBuffer:
    """What pickled buffers are made of."""
    cdef const unsigned char[::1] source = contents
    made = cls.__new__(cls)  # as `copy`: pickle restores what is the derived class's own
    DeviceBuffer.__init__(made, ptr=<uintptr_t> &source[0] if source.shape[0] != 0 else 0, size=source.shape[0])
    return made


def to_device(b, stream=DEFAULT_STREAM) -> DeviceBuffer:
    """A new buffer with the bytes of `b`, a contiguous buffer of unsigned bytes such as ``bytes``."""
    return DeviceBuffer.to_device(b, stream)


def open_shared(handle, stream=DEFAULT_STREAM) -> DeviceBuffer:
    """Open the memory that another process has shared: the same memory, read and written by both.

    The buffer keeps the memory in the other process until it dies or is closed; before it lets go the host waits for
    what is queued on its stream.

    Parameters
    ----------
    handle : BlockHandle or str
        What ``DeviceBuffer.share`` has returned in the other process.
    stream : Stream or any framework's stream
        It waits, on the device, until the memory is written as its owner shared it; the stream of the new buffer.

    Returns
    -------
    DeviceBuffer
        Of the block's device. It has no room to grow.

    Raises
    ------
    RuntimeError
        The block is this process's own, its owner has ended or has freed it, is another user's, or uses a device that
        this process does not see.
    ValueError
        `handle` is none.
    """
    return open_into(DeviceBuffer.__new__(DeviceBuffer), handle, as_stream(stream))
