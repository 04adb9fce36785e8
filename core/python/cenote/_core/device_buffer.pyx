"""DeviceBuffer: untyped device memory that frees itself. Documented in `cenote` and `cenote.device_buffer`."""
from pickle import PickleBuffer
from sys import intern

import numpy as np

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.operator cimport dereference
from libc.stdint cimport uintptr_t
from libcpp.utility cimport move

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport address_argument, bytes_argument, device_argument, int_argument
from cenote._core.device_array cimport device_array
from cenote._core.host_memory cimport readable_argument, writable_argument
from cenote._core.libcenote cimport (
    PyObject,
    PyTypeObject,
    PyVectorcall_NARGS,
    traverseproc,
    vectorcallfunc,
    visitproc,
)
from cenote._core.memory_resource cimport DeviceMemoryResource, known, resource_argument, wrap
from cenote._core.stream cimport Stream, as_stream

from cenote._core.stream import DEFAULT_STREAM, PER_THREAD_DEFAULT_STREAM

cdef Stream PER_THREAD = PER_THREAD_DEFAULT_STREAM
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
    cdef lib.reach _used_by  # whose streams those may be

    # Calls let go of the interpreter's lock. What they need of the object they take before; what changes in it they
    # change after, under the lock. Meanwhile they are written down here, so that the memory stays where it is.
    cdef Py_ssize_t _users  # calls underway that use the memory
    cdef bint _is_moving  # a call is underway that moves or frees it

    def __init__(self, *, ptr=0, size=0, stream=DEFAULT_STREAM, mr=None):
        cdef DeviceBuffer made = DeviceBuffer.__new__(DeviceBuffer)
        made._make(ptr, size, stream, mr)
        self._require_unused()  # only now: meanwhile others ran
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
            finish(on, dereference(resource).get().device())
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
        self._used_by, other._used_by = other._used_by, self._used_by

    cdef lib.device_buffer* made(self) except NULL:
        """The C++ buffer; RuntimeError if ``__init__`` has not made it."""
        if not self._buffer.has_value():
            raise RuntimeError(f"this {type(self).__name__} was never initialised: call super().__init__(…)")
        return &dereference(self._buffer)

    cdef lib.device_buffer* _begin(self) except NULL:
        """The C++ buffer, for a call that uses its memory and lets others run; `_users` is to be counted down again."""
        cdef lib.device_buffer* buffer = self.made()
        if self._is_moving:
            raise RuntimeError(self._busy())
        self._users += 1
        return buffer

    cdef lib.device_buffer* _begin_move(self) except NULL:
        """The same for one that moves or frees the memory; `_is_moving` is to be taken back."""
        cdef lib.device_buffer* buffer = self.made()
        self._require_unused()
        self._is_moving = True
        return buffer

    cdef _require_unused(self):
        if self._users != 0 or self._is_moving:
            raise RuntimeError(self._busy())
        if self._exports != 0:
            raise BufferError("the memory cannot move or be freed: a view of it (memoryview, array, DLPack) is alive")

    cdef _busy(self):
        return (f"this {type(self).__name__} is in use by another call: while one thread resizes, closes or initialises "
                "a buffer no other may use it; give each thread a buffer of its own, or guard it with a lock")

    cdef _was_used_on(self, Stream on):
        """The call's work is queued on `on`, which is the buffer's stream now: its memory will be freed there.

        Another call that is underway may have queued work on a stream of its own. Then the host waits for ours, as no
        one stream comes after both.
        """
        if self._users == 1:
            self._use(on)
        else:
            wait_for(on, self.made().device())

    cdef _use(self, Stream stream):
        if self._exports != 0 and not self._is_on(stream):
            self._share_with(self._stream)  # where a consumer may go on using the memory
        dereference(self._buffer).set_stream(stream._handle)
        self._stream = stream

    cdef _share_with(self, Stream others):
        """A consumer uses the memory on `others`, which will not be ours to name when the memory is freed."""
        cdef int device = self.made().device()
        self._is_shared = True
        if self.made().data() != NULL and lib.device_of_stream(others._handle, device) != device:
            self._used_by = lib.reach.every_device

    cdef bint _is_on(self, Stream stream):
        """Whether `stream` is the buffer's own, as the calling thread means it."""
        if stream._handle.is_legacy_default() and self._stream._handle.is_legacy_default():
            return True
        return stream._handle.value() == self._stream._handle.value() and self.made().kept().is_known_here()

    cdef Stream _stream_here(self):
        """The buffer's stream, or the calling thread's own after that of another thread, which nothing names here."""
        cdef lib.device_buffer* buffer = self.made()
        if buffer.kept().is_known_here():
            return self._stream
        buffer = self._begin()
        try:
            with nogil:
                buffer.begin_use(PER_THREAD._handle)
            self._was_used_on(PER_THREAD)
        finally:
            self._users -= 1
        return PER_THREAD

    cdef _synchronize(self):
        """Wait until the buffer's work is done."""
        cdef lib.device_buffer* buffer = self._begin()
        try:
            with nogil:
                buffer.synchronize()
        finally:
            self._users -= 1

    def __dealloc__(self):
        self._leases.drop(<PyObject*> self)
        self._end()
        if self._buffer.has_value() and not self._keeps_resource():
            with nogil:
                self._buffer.reset()
        self._buffer.reset()
        self._drop_hold()

    cdef bint _keeps_resource(self):
        """Not where the program has called ``__init__`` of the object that was given once more."""
        return not self._hold.is_empty() or (
            self._mr is not None and self._mr._resource.get() == dereference(self._buffer).resource().get())

    cdef int _end(self) except -1:
        if self._counted != 0:
            lib.client_freed(_client, self._counted)
            self._counted = 0
        return self._free(&dereference(self._buffer)) if self._buffer.has_value() else 0

    cdef int _free(self, lib.device_buffer* memory) except -1:
        """Give memory back: in the order of its stream, or after all work of the device where that is not enough.

        It is not enough where others used the memory by DLPack, on streams of theirs. And a stream of somebody else's
        may have been destroyed before us, in a reference cycle: a dead handle must not be touched. `memory` is what
        nobody else knows any more.
        """
        cdef bint is_late = self._is_shared or self._stream.may_be_gone()
        cdef lib.reach used_by = self._used_by
        cdef size_t bytes
        self._is_shared = False
        self._used_by = lib.reach.its_device
        if memory.data() == NULL:
            return 0
        if not is_late:
            if not memory.close_at_once():
                with nogil:
                    memory.close()
            return 0
        with nogil:
            bytes = memory.capacity()
            lib.reclaimer.of(memory.device()).free_after_all_work(
                memory.resource(), memory.release(), bytes, lib.stream_ref(), used_by)
        return 0

    cdef int _count(self) except -1:
        """Count the buffer's present capacity for the client "cenote"."""
        cdef size_t held = dereference(self._buffer).capacity()
        if self._counted != held:
            if self._counted != 0:
                lib.client_freed(_client, self._counted)
            self._counted = held
            if held != 0:
                lib.client_allocated(_client, held)
        return 0

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

    cdef void* _address(self) except? NULL:
        """What array libraries are told: null where there are no bytes, whatever memory is kept."""
        return self.made().data() if self.made().size() != 0 else NULL

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
        return np.array(view, dtype=dtype) if copy else np.asarray(view, dtype=dtype)

    def __dlpack_device__(self) -> tuple[int, int]:
        """What DLPack calls the memory: a device type (2 device, 3 pinned, 13 managed, 1 other host) and a number."""
        cdef lib.memory_kind kind
        cdef void* data = self.made().data()
        cdef int device = self.made().device()
        if data == NULL:
            kind = lib.memory_kind.pinned if self.mr.is_host_accessible else lib.memory_kind.device
        else:
            with nogil:
                kind = lib.kind_of(data, device)
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
            return host_capsule(self, versioned)
        if not is_shareable:
            raise BufferError(f"memory of DLPack device {own} cannot be exported to DLPack device {wanted}")
        cdef DeviceBuffer exported = self.copy() if is_copy else self
        owner = Export(exported)  # from here on the memory stays where it is
        exported._hand_over(stream, wanted == on_host, own != on_device and wanted != on_device)
        return lib.make_dl_capsule(owner, exported._address(), exported.made().size(),
                                   <lib.dl_device_type> <int> wanted[0], wanted[1], versioned, is_copy)

    cdef _hand_over(self, stream, bint to_host, bint maybe_to_host):
        """Make the memory ready for a consumer on `stream`, or on the host."""
        cdef Stream on
        cdef lib.device_buffer* buffer
        if stream is not None and stream == -1:
            self._is_shared = True
            self._used_by = lib.reach.every_device  # as it names no stream
            return
        on = as_stream(1 if stream is None else stream)
        if to_host or (maybe_to_host and stream is None):
            self._synchronize()
            return
        if self._is_on(on):
            return
        buffer = self._begin()
        try:
            with nogil:
                buffer.begin_use(on._handle)
        finally:
            self._users -= 1
        self._share_with(on)

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

    cdef _copy_out(self, lib.device_buffer* buffer, void* target, Stream on):
        """Queue a copy of all bytes. `buffer` is in use by the caller."""
        with nogil:
            buffer.begin_use(on._handle)
            lib.copy_async(target, buffer.data(), buffer.size(), on._handle, buffer.device())
        self._was_used_on(on)

    cdef _copy_in(self, const void* source, size_t count, Stream on, DeviceBuffer written_by=None,
                  Stream written_on=None):
        """Overwrite the first bytes; of a source that another buffer, or another stream, may still be writing."""
        cdef int device = self.made().device()
        cdef int its_device = device
        cdef bint is_written = written_on is not None
        cdef lib.stream_ref writer = written_on._handle if is_written else on._handle
        cdef lib.device_buffer* buffer = self._begin()
        cdef lib.device_buffer* other = NULL
        try:
            self._check_room(count)  # again: before, others may have run
            if written_by is not None:
                other = written_by._begin()
            with nogil:
                buffer.begin_use(on._handle)
                if other != NULL:
                    other.begin_use(on._handle, device)
                elif is_written:
                    its_device = lib.device_of(source, device).value_or(device)
                    lib.order_after(lib.kept_stream(on._handle), device, lib.kept_stream(writer), its_device)
                lib.copy_async(buffer.data(), source, count, on._handle, device)
                if other != NULL:
                    other.end_use(on._handle, device)
                elif is_written:
                    lib.order_after(lib.kept_stream(writer), its_device, lib.kept_stream(on._handle), device)
            self._was_used_on(on)
        finally:
            self._users -= 1
            if other != NULL:
                written_by._users -= 1
        finish(on, device)

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

    cdef _check_room(self, object count):
        if count > self.made().size():
            raise ValueError(f"{count} bytes do not fit into a buffer of {self.size}")

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

    cdef _reserve(self, lib.device_buffer* buffer, size_t capacity, Stream on):
        if capacity > buffer.capacity():
            self._move(buffer, capacity, on)
        else:
            self._follow(buffer, on)

    cdef _follow(self, lib.device_buffer* buffer, Stream on):
        """`on` comes after the buffer's stream, and becomes it."""
        with nogil:
            buffer.begin_use(on._handle)
        self._use(on)

    cdef _move(self, lib.device_buffer* buffer, size_t capacity, Stream on):
        """Move the contents to memory of another capacity, which is put in place of the old under the lock."""
        cdef lib.optional_device_buffer memory
        with nogil:
            memory.emplace(dereference(buffer), capacity, on._handle)
        self._buffer.swap(memory)
        self._stream = on
        dereference(memory).set_stream(on._handle)  # the old memory goes after the copy out of it
        self._count()
        self._free(&dereference(memory))

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
    self._end()
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


cdef tuple pair_argument(str name, object pair):
    """Two ints; ValueError unless there are two, TypeError for what is no sequence of them."""
    if not hasattr(pair, "__iter__"):
        raise TypeError(f"{name} must be two ints, not {type(pair).__name__}")
    numbers = tuple([int_argument(f"{name} must be two ints: one of them", number) for number in pair])
    if len(numbers) != 2:
        raise ValueError(f"{name} must be two numbers, not {len(numbers)}")
    return numbers


cdef object host_capsule(DeviceBuffer buffer, bint versioned):
    """A DLPack capsule of a copy on the host, finished on return."""
    cdef Stream on = buffer._stream_here()
    cdef unsigned char[::1] copied = buffer.copy_to_host(stream=on)
    wait_for(on, buffer.device)
    cdef void* data = <void*> &copied[0] if copied.shape[0] != 0 else NULL
    return lib.make_dl_capsule(copied.base, data, copied.shape[0], lib.dl_device_type.cpu, 0, versioned, True)


cdef wait_for(Stream stream, int device):
    """Wait until the work queued on a stream is done; `device` is that of a default stream."""
    with nogil:
        lib.synchronize(stream._handle, device)


cdef finish(Stream stream, int device):
    """A call on the default stream is finished when it returns."""
    if stream._handle.is_legacy_default():
        wait_for(stream, device)


def rebuild(cls, contents) -> DeviceBuffer:
    """What pickled buffers are made of."""
    cdef const unsigned char[::1] source = contents
    made = cls.__new__(cls)  # as `copy`: pickle restores what is the derived class's own
    DeviceBuffer.__init__(made, ptr=<uintptr_t> &source[0] if source.shape[0] != 0 else 0, size=source.shape[0])
    return made


def to_device(b, stream=DEFAULT_STREAM) -> DeviceBuffer:
    """A new buffer with the bytes of `b`, a contiguous buffer of unsigned bytes such as ``bytes``."""
    return DeviceBuffer.to_device(b, stream)
