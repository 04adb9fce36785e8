"""DeviceBuffer: untyped device memory that frees itself. Documented in `cenote` and `cenote.device_buffer`."""
from pickle import PickleBuffer
from sys import intern

import numpy as np

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES
from cpython.bytes cimport PyBytes_FromStringAndSize
from cython.operator cimport dereference
from libc.stdint cimport uintptr_t

from cenote cimport _libcenote as lib
from cenote._arguments cimport address_argument, bytes_argument, device_argument, int_argument
from cenote._libcenote cimport (
    PyObject,
    PyTypeObject,
    PyVectorcall_NARGS,
    traverseproc,
    vectorcallfunc,
    visitproc,
)
from cenote._memory_resource cimport DeviceMemoryResource, known, resource_argument, wrap
from cenote._stream cimport Stream, as_stream

from cenote._stream import DEFAULT_STREAM

cdef int _client = lib.register_client(b"cenote")
cdef object _size_keyword = intern("size"), _stream_keyword = intern("stream"), _mr_keyword = intern("mr")
cdef char* _unsigned_byte = b"B"  # the buffer protocol's word for it


@cython.no_gc_clear  # the stream and the resource must outlive the memory, also in a reference cycle
cdef class DeviceBuffer:
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

    cdef lib.optional_device_buffer _buffer
    cdef Stream _stream
    # One of these two keeps the resource, so that what the buffer itself has of it is hardly ever the last.
    cdef DeviceMemoryResource _mr  # None until somebody asks, where the program holds no object of it
    cdef lib.resource_hold _hold  # empty where a resource was given
    cdef lib.leases _leases  # of a resource that calls Python functions (python_lease.hpp)
    cdef size_t _counted
    cdef Py_ssize_t _exports  # views and capsules that live
    cdef bint _is_shared  # others use it on streams that are not ours to name later

    def __init__(self, *, ptr=0, size=0, stream=DEFAULT_STREAM, mr=None):
        cdef DeviceBuffer made = DeviceBuffer.__new__(DeviceBuffer)
        made._make(ptr, size, stream, mr)
        self._require_no_exports()  # only now: meanwhile others ran
        self._swap(made)  # which frees what was here

    cdef int _make(self, object ptr, object size, object stream, object mr) except -1:
        """Make the memory of a new object, which nobody else knows yet."""
        cdef Stream on = as_stream(stream)
        cdef const void* source = <const void*> address_argument("ptr", ptr)
        cdef size_t bytes = bytes_argument("size", size)
        cdef lib.shared_ptr[lib.memory_resource] given
        cdef const lib.shared_ptr[lib.memory_resource]* resource = &given
        if mr is not None:
            given = resource_argument("mr", mr)
            self._mr = mr
        else:
            self._hold_current_resource()
            resource = &self._hold.resource()
            self._mr = known(dereference(resource))
            if self._mr is not None and self._mr._standing.get() != NULL:  # as if it had been given
                given = resource_argument("mr", self._mr)
                resource = &given
                self._drop_hold()
        self._stream = on
        if source == NULL:
            self._buffer.emplace(0, on._handle, dereference(resource))
            if not dereference(self._buffer).open_at_once(bytes):
                self._open_waiting(source, bytes, on, dereference(resource))
        else:
            self._open_waiting(source, bytes, on, dereference(resource))
        if self._mr is not None and self._mr._standing.get() != NULL:
            self._leases.hold(given, <PyObject*> self._mr, self._mr._standing, 1, <PyObject*> self, let_go)
        self._counted = bytes
        if bytes != 0:
            lib.client_allocated(_client, bytes)
        if source != NULL:
            self._finish(on)
        return 0

    cdef int _open_waiting(self, const void* source, size_t bytes, Stream on,
                           const lib.shared_ptr[lib.memory_resource]& resource) except -1:
        """Take memory where that may wait, or call functions of the program's."""
        cdef lib.interrupt_scope interrupts
        with nogil:
            if source == NULL:
                self._buffer.emplace(bytes, on._handle, resource)
            else:
                self._buffer.emplace(source if bytes != 0 else NULL, bytes, on._handle, resource)
        interrupts.end()
        return 0

    cdef int _hold_current_resource(self) except -1:
        """Take a hold on the current resource, made if there is none yet."""
        self._hold = lib.find_resource_hold(lib.current_device())
        if self._hold.is_empty():
            with nogil:
                self._hold = lib.get_resource_hold(lib.current_device())
        return 0

    cdef int _drop_hold(self) except -1:
        if not self._hold.drop_unless_last():
            with nogil:
                self._hold.drop()  # the end of the resource, which may wait for its device
        return 0

    cdef _swap(self, DeviceBuffer other):
        """Exchange the memory, and all that is known of it, for that of `other`."""
        self._buffer.swap(other._buffer)
        self._hold.swap(other._hold)
        self._leases.swap(other._leases, <PyObject*> self, <PyObject*> other, let_go)
        self._stream, other._stream = other._stream, self._stream
        self._mr, other._mr = other._mr, self._mr
        self._counted, other._counted = other._counted, self._counted
        self._is_shared, other._is_shared = other._is_shared, self._is_shared

    cdef lib.device_buffer* made(self) except NULL nogil:
        """The C++ buffer; RuntimeError if ``__init__`` has not made it."""
        if not self._buffer.has_value():
            with gil:
                raise RuntimeError(f"this {type(self).__name__} was never initialised: call super().__init__(…)")
        return &dereference(self._buffer)

    def __dealloc__(self):
        self._leases.drop(<PyObject*> self)
        self._free()
        if self._buffer.has_value() and not self._keeps_resource():
            with nogil:
                self._buffer.reset()
        self._buffer.reset()
        self._drop_hold()

    cdef bint _keeps_resource(self):
        """Not where the program has called ``__init__`` of the object that was given once more."""
        return not self._hold.is_empty() or (
            self._mr is not None and self._mr._resource.get() == dereference(self._buffer).resource().get())

    cdef int _free(self) except -1:
        """Give the memory back: in the order of the stream, or after all work of the device where that is not enough.

        It is not enough where others used the memory by DLPack, on streams of theirs. And a stream of somebody else's
        may have been destroyed before us, in a reference cycle: a dead handle must not be touched.
        """
        cdef lib.device_buffer* buffer
        cdef size_t bytes
        if not self._buffer.has_value():
            return 0
        buffer = &dereference(self._buffer)
        if buffer.data() == NULL:
            return 0
        if self._counted != 0:
            lib.client_freed(_client, self._counted)
            self._counted = 0
        if not self._is_shared and not self._stream.may_be_gone():
            if not buffer.close_at_once():
                with nogil:
                    buffer.close()
            return 0
        with nogil:
            bytes = buffer.capacity()
            lib.reclaimer.of(buffer.device()).free_after_all_work(
                buffer.resource(), buffer.release(), bytes, lib.stream_ref())
        self._is_shared = False
        return 0

    cdef _count(self):
        """Count the buffer's present capacity for the client "cenote"."""
        if self._counted != self.made().capacity():
            if self._counted != 0:
                lib.client_freed(_client, self._counted)
            self._counted = self.made().capacity()
            if self._counted != 0:
                lib.client_allocated(_client, self._counted)

    cdef _finish(self, Stream stream):
        """A call on the default stream is finished when it returns."""
        if stream._handle.is_legacy_default():
            self._wait_for(stream)

    cdef _wait_for(self, Stream stream):
        """Wait until the work queued on a stream is done."""
        with nogil:
            lib.synchronize(stream._handle, self.made().device())

    cdef _use(self, Stream stream):
        """The buffer was used on `stream` last: it will be freed there."""
        self.made().set_stream(stream._handle)
        self._stream = stream

    cdef _require_no_exports(self):
        if self._exports != 0:
            raise BufferError("the memory cannot move or be freed: a view of it (memoryview, array, DLPack) is alive")

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
        return {
            "data": (self.ptr, False),
            "shape": (self.size,),
            "strides": None,
            "typestr": "|u1",
            "version": 3,
            "stream": self._stream.handle or 1,  # the protocol forbids 0; 1 is the legacy default stream
        }

    def __getbuffer__(self, Py_buffer* view, int flags):
        """The buffer protocol, where the host can reach the memory; waits for the buffer's stream first."""
        self.made()
        if not self.mr.is_host_accessible:
            raise BufferError(
                f"the host cannot reach memory of device {self.device}: copy it with tobytes() or copy_to_host(), or "
                "take the buffer from managed or pinned memory"
            )
        self._exports += 1  # before the wait, in which other threads run
        try:
            self._wait_for(self._stream)
        except BaseException:
            self._exports -= 1
            raise
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
        return np.array(view, dtype=dtype) if copy else np.asarray(view, dtype=dtype)

    def __dlpack_device__(self) -> tuple[int, int]:
        """What DLPack calls the memory: a device type (2 device, 3 pinned, 13 managed, 1 other host) and a number."""
        cdef lib.memory_kind kind
        if self.made().data() == NULL:
            kind = lib.memory_kind.pinned if self.mr.is_host_accessible else lib.memory_kind.device
        else:
            with nogil:
                kind = lib.kind_of(self.made().data(), self.made().device())
        if kind == lib.memory_kind.device:
            return <int> lib.dl_device_type.cuda, self.device
        if kind == lib.memory_kind.managed:
            return <int> lib.dl_device_type.cuda_managed, 0
        if kind == lib.memory_kind.pinned:
            return <int> lib.dl_device_type.cuda_host, 0
        return <int> lib.dl_device_type.cpu, 0

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
        own = self.__dlpack_device__()
        on_host = (<int> lib.dl_device_type.cpu, 0)
        on_device = (<int> lib.dl_device_type.cuda, self.device)
        wanted = own if dl_device is None else pair_argument("dl_device", dl_device)
        cdef bint versioned = max_version is not None and pair_argument("max_version", max_version)[0] >= 1
        cdef bint is_copy = copy is not None and bool(copy)
        cdef bint is_shareable = wanted == own or wanted == on_device or (wanted == on_host and own != on_device)
        if stream is not None and stream == 0:
            raise ValueError("stream 0 is ambiguous in DLPack: 1 is the legacy default stream, 2 the per-thread one")
        if wanted == on_host and (is_copy or not is_shareable):
            if copy is not None and not copy:
                raise BufferError(f"memory of device {self.device} cannot be shared with the host without a copy")
            return host_capsule(self.copy_to_host(stream=self._stream), self._stream, versioned)
        if not is_shareable:
            raise BufferError(f"memory of DLPack device {own} cannot be exported to DLPack device {wanted}")
        cdef DeviceBuffer exported = self.copy() if is_copy else self
        exported._hand_over(stream, wanted == on_host, own != on_device and wanted != on_device)
        return lib.make_dl_capsule(Export(exported), exported.made().data(), exported.made().size(),
                                   <lib.dl_device_type> <int> wanted[0], wanted[1], versioned, is_copy)

    cdef _hand_over(self, stream, bint to_host, bint maybe_to_host):
        """Make the memory ready for a consumer on `stream`, or on the host."""
        cdef Stream on
        if stream is not None and stream == -1:
            self._is_shared = True
            return
        on = as_stream(1 if stream is None else stream)
        if to_host or (maybe_to_host and stream is None):
            self._wait_for(self._stream)
            return
        if on._handle.is_legacy_default() and self._stream._handle.is_legacy_default():
            return
        if on._handle.value() != self._stream._handle.value():
            with nogil:
                lib.order_after(on._handle, self._stream._handle, self.made().device())
            self._is_shared = True

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
        cdef size_t size = self.made().size()
        if ary is None:
            ary = np.empty(size, dtype="u1")
        cdef unsigned char[::1] target = writable_argument("ary", ary)
        if <size_t> target.shape[0] < size:
            raise ValueError(f"the host buffer is too small. Need space for {size} bytes, not {target.shape[0]}")
        cdef void* to = <void*> &target[0] if target.shape[0] != 0 else NULL
        with nogil:
            self.made().copy_to(to, size, on._handle)
        self._use(on)
        self._finish(on)
        return ary

    def copy_from_host(self, ary, stream=DEFAULT_STREAM) -> None:
        """Overwrite the first bytes with those of `ary`; ValueError if they are more than `size`."""
        cdef Stream on = as_stream(stream)
        cdef const unsigned char[::1] host = readable_argument("ary", ary)
        cdef size_t count = host.shape[0]
        self._check_room(count)
        cdef const void* source = <const void*> &host[0] if count != 0 else NULL
        with nogil:
            self.made().copy_from(source, count, on._handle)
        self._use(on)
        self._finish(on)

    def copy_from_device(self, cuda_ary, stream=DEFAULT_STREAM) -> None:
        """Overwrite the first bytes with those of a one-dimensional contiguous array in device memory.

        `cuda_ary` is any object with ``__cuda_array_interface__``; ValueError if it has none or a malformed one, is not
        contiguous, is masked, or has more bytes than the buffer. The copy waits, on the device, for the stream that it
        names.
        """
        cdef Stream on = as_stream(stream)
        interface = getattr(cuda_ary, "__cuda_array_interface__", None)
        if interface is None:
            raise ValueError("cuda_ary must be an array in device memory (__cuda_array_interface__), "
                             f"not {type(cuda_ary).__name__}")
        cdef uintptr_t source
        try:
            if not isinstance(interface["typestr"], str):
                raise TypeError(f"typestr is {type(interface['typestr']).__name__}")
            item = np.dtype(interface["typestr"]).itemsize
            shape = [int_argument("an extent", extent) for extent in interface["shape"]]
            strides, mask = interface.get("strides"), interface.get("mask")
            source = address_argument("its address", interface["data"][0])
        except (AttributeError, LookupError, OverflowError, TypeError) as error:
            raise ValueError(f"the array has a malformed __cuda_array_interface__: {error!r}") from error
        if len(shape) > 1 or (strides and strides[0] != item) or (shape and shape[0] < 0):
            raise ValueError("expected a one-dimensional contiguous array")
        if mask is not None:
            raise ValueError("expected an array without a mask")
        wanted = item * (shape[0] if shape else 1)
        cdef Stream written_on = on
        if isinstance(cuda_ary, DeviceBuffer):
            written_on = (<DeviceBuffer> cuda_ary)._stream
        elif interface.get("stream") is not None:
            written_on = as_stream(interface["stream"])
        self._check_room(wanted)
        cdef size_t count = wanted
        with nogil:
            lib.order_after(on._handle, written_on._handle, self.made().device())
            self.made().copy_from(<const void*> source, count, on._handle)
        self._use(on)
        self._finish(on)

    cdef _check_room(self, object count):
        if count > self.made().size():
            raise ValueError(f"{count} bytes do not fit into a buffer of {self.size}")

    def tobytes(self, stream=DEFAULT_STREAM) -> bytes:
        """The contents as ``bytes``."""
        cdef Stream on = as_stream(stream)
        cdef size_t size = self.made().size()
        copied = PyBytes_FromStringAndSize(NULL, size)
        cdef char* target = copied
        with nogil:
            self.made().copy_to(target, size, on._handle)
        self._use(on)
        self._wait_for(on)
        return copied

    def __bytes__(self) -> bytes:
        return self.tobytes(self.stream)

    def __reduce_ex__(self, protocol):
        """Pickle the bytes, as the buffer's own stream leaves them; protocol 5 hands them over out of band.

        What is unpickled lies on the current device, in its current resource.
        """
        contents = self.tobytes(self.stream)
        attributes = getattr(self, "__dict__", None) or None
        return rebuild, (type(self), PickleBuffer(contents) if protocol >= 5 else contents), attributes

    def copy(self) -> DeviceBuffer:
        """A buffer of its own with the same bytes, from the same resource, on the same stream."""
        copied = type(self).__new__(type(self))  # a class derived from this one may have an __init__ of its own
        DeviceBuffer.__init__(copied, ptr=self.ptr, size=self.size, stream=self._stream, mr=self.mr)
        return copied

    def __copy__(self) -> DeviceBuffer:
        return self.copy()

    def __deepcopy__(self, memo) -> DeviceBuffer:
        return self.copy()

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
        cdef Stream on = self.stream if stream is None else as_stream(stream)
        cdef bint given = device is not None
        cdef int location = device_argument(device) if given else 0
        with nogil:
            if not given:
                location = lib.current_device()
            elif location != lib.host_location:
                lib.check_device(location)
            self.made().prefetch(location, on._handle)
        self._use(on)

    def reserve(self, new_capacity, stream=DEFAULT_STREAM) -> None:
        """Make room for `new_capacity` bytes; the contents are kept.

        `stream` comes after all that uses the buffer still, and becomes its stream; so with `resize` and
        `shrink_to_fit`.
        """
        cdef Stream on = as_stream(stream)
        cdef size_t capacity = bytes_argument("new_capacity", new_capacity)
        cdef lib.interrupt_scope interrupts
        self._require_no_exports()
        with nogil:
            self.made().reserve(capacity, on._handle)
        self._use(on)
        self._count()
        interrupts.end()

    def resize(self, new_size, stream=DEFAULT_STREAM) -> None:
        """Change the size; the contents are kept as far as they fit, new bytes are not initialised.

        A smaller size keeps the memory: `shrink_to_fit` gives it back.
        """
        cdef Stream on = as_stream(stream)
        cdef size_t size = bytes_argument("new_size", new_size)
        cdef lib.interrupt_scope interrupts
        self._require_no_exports()
        with nogil:
            self.made().resize(size, on._handle)
        self._use(on)
        self._count()
        interrupts.end()

    def shrink_to_fit(self, stream=DEFAULT_STREAM) -> None:
        """Move the contents into memory of just their size; nothing happens if they have it."""
        cdef Stream on = as_stream(stream)
        cdef lib.interrupt_scope interrupts
        self._require_no_exports()
        with nogil:
            self.made().shrink_to_fit(on._handle)
        self._use(on)
        self._count()
        interrupts.end()

    def close(self) -> None:
        """Free the memory now, in the order of the buffer's stream.

        An empty buffer is left, with the same resource and stream; `resize` gives it memory again.
        """
        cdef lib.interrupt_scope interrupts
        self.made()
        self._require_no_exports()
        self._free()
        interrupts.end()

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


# Counts no reference of its own: the collector forbids it. The argument is borrowed.
cdef int traverse(DeviceBuffer self, visitproc visit, void* argument) noexcept:
    cdef int result = _traversal(<PyObject*> self, visit, argument)
    return result if result != 0 else self._leases.visit(visit, argument)


cdef traverseproc _traversal = (<PyTypeObject*> DeviceBuffer).tp_traverse
(<PyTypeObject*> DeviceBuffer).tp_traverse = <traverseproc> traverse


cdef void let_go(object holder) noexcept:
    """End a buffer that is garbage together with its resource (python_lease.hpp)."""
    cdef DeviceBuffer self = holder
    if self._exports != 0:
        return
    self._free()
    self._buffer.reset()
    self._leases.drop(<PyObject*> self)


@cython.final
@cython.internal
@cython.no_gc_clear
cdef class Export:
    """While it lives, the memory of a buffer stays where it is."""

    cdef DeviceBuffer buffer

    def __cinit__(self, DeviceBuffer buffer not None):
        self.buffer = buffer
        buffer._exports += 1

    def __dealloc__(self):
        self.buffer._exports -= 1


cdef const unsigned char[::1] readable_argument(str name, object host) except *:
    """The memory of the host that can be read."""
    if host is None:
        raise TypeError(refusal_of_host(name, host, "must not be None"))
    try:
        return host
    except BufferError as error:
        raise BufferError(refusal_of_host(name, host, error)) from None
    except ValueError as error:
        raise ValueError(refusal_of_host(name, host, error)) from None
    except TypeError as error:
        raise TypeError(refusal_of_host(name, host, error)) from None


cdef unsigned char[::1] writable_argument(str name, object host) except *:
    """The memory of the host that can be written."""
    readable_argument(name, host)  # whose errors say more
    try:
        return host
    except (BufferError, ValueError):  # NumPy's arrays raise the second
        raise BufferError(f"{name} cannot be written: this {type(host).__name__} is read-only") from None


cdef str refusal_of_host(str name, object host, object why):
    return (f"{name} must be a contiguous buffer of unsigned bytes, such as bytes or a numpy array of uint8, "
            f"not {type(host).__name__} ({why})")


cdef tuple pair_argument(str name, object pair):
    """Two ints; ValueError unless there are two, TypeError for what is no sequence of them."""
    if not hasattr(pair, "__iter__"):
        raise TypeError(f"{name} must be two ints, not {type(pair).__name__}")
    numbers = tuple([int_argument(f"{name} must be two ints: one of them", number) for number in pair])
    if len(numbers) != 2:
        raise ValueError(f"{name} must be two numbers, not {len(numbers)}")
    return numbers


cdef object host_capsule(unsigned char[::1] copied, Stream stream, bint versioned):
    """A DLPack capsule of a copy on the host that is underway on `stream`; finished on return."""
    stream.synchronize()
    cdef void* data = <void*> &copied[0] if copied.shape[0] != 0 else NULL
    return lib.make_dl_capsule(copied.base, data, copied.shape[0], lib.dl_device_type.cpu, 0, versioned, True)


def rebuild(cls, contents) -> DeviceBuffer:
    """What pickled buffers are made of."""
    cdef const unsigned char[::1] source = contents
    made = cls.__new__(cls)  # as `copy`: pickle restores what is the derived class's own
    DeviceBuffer.__init__(made, ptr=<uintptr_t> &source[0] if source.shape[0] != 0 else 0, size=source.shape[0])
    return made


def to_device(b, stream=DEFAULT_STREAM) -> DeviceBuffer:
    """A new buffer with the bytes of `b`, a contiguous buffer of unsigned bytes such as ``bytes``."""
    return DeviceBuffer.to_device(b, stream)


cdef copy(void* to, const void* source, size_t count, Stream stream, bint finish):
    """Queue a copy; where `finish` is set, one on the default stream is finished on return."""
    cdef int device = stream.device
    with nogil:
        if device < 0:
            device = lib.current_device()
        lib.copy_async(to, source, count, stream._handle, device)
        if finish and stream._handle.is_legacy_default():
            lib.synchronize(stream._handle, device)


def copy_ptr_to_host(db, hb, stream=DEFAULT_STREAM) -> None:
    """Fill a writable buffer of the host from device memory; finished on return on the default stream.

    Parameters
    ----------
    db : int
        Address in device memory.
    hb : writable buffer of unsigned bytes
        Where to; its length says how many bytes are copied.
    stream : Stream or any framework's stream
        On any other than the default stream, synchronise it before reading.
    """
    cdef Stream on = as_stream(stream)
    cdef uintptr_t source = address_argument("db", db)
    cdef unsigned char[::1] host = writable_argument("hb", hb)
    if host.shape[0] != 0:
        copy(<void*> &host[0], <const void*> source, host.shape[0], on, True)


def copy_host_to_ptr(hb, db, stream=DEFAULT_STREAM) -> None:
    """Fill device memory from a buffer of the host; finished on return on the default stream.

    Parameters
    ----------
    hb : buffer of unsigned bytes
        Where from; its length says how many bytes are copied.
    db : int
        Address in device memory.
    stream : Stream or any framework's stream
        On any other than the default stream the copy is only queued.
    """
    cdef Stream on = as_stream(stream)
    cdef uintptr_t target = address_argument("db", db)
    cdef const unsigned char[::1] host = readable_argument("hb", hb)
    if host.shape[0] != 0:
        copy(<void*> target, <const void*> &host[0], host.shape[0], on, True)


def copy_device_to_ptr(d_src, d_dst, count, stream=DEFAULT_STREAM) -> None:
    """Queue a copy from device memory to device memory; it is never waited for.

    Parameters
    ----------
    d_src, d_dst : int
        Addresses in device memory: from, to.
    count : int
        Bytes.
    stream : Stream or any framework's stream
        Where the copy is queued.
    """
    cdef Stream on = as_stream(stream)
    cdef uintptr_t source = address_argument("d_src", d_src)
    cdef uintptr_t target = address_argument("d_dst", d_dst)
    copy(<void*> target, <const void*> source, bytes_argument("count", count), on, False)
