"""The memory of a DeviceBuffer: whose it is, who uses it on which streams, and how it is freed."""
cimport cython
from cython.operator cimport dereference

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport address_argument, bytes_argument
from cenote._core.libcenote cimport PyObject, PyTypeObject, traverseproc, visitproc
from cenote._core.memory_resource cimport known, resource_argument
from cenote._core.stream cimport Stream, as_stream

from cenote._core.stream import PER_THREAD_DEFAULT_STREAM

cdef Stream PER_THREAD = PER_THREAD_DEFAULT_STREAM
cdef int _client = lib.register_client(b"cenote")


@cython.auto_pickle(False)  # DeviceBuffer says how
@cython.no_gc_clear  # the stream and the resource must outlive the memory, also in a reference cycle
cdef class BufferMemory:
    """Memory of a resource, freed in stream order when the object dies."""

    def __cinit__(self, *args, **kwargs):
        pass  # Cython 3.3.0 needs one in a base that has __dealloc__

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
        self._count()
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

    cdef _swap(self, BufferMemory other):
        """Exchange the memory, and all that is known of it, for that of `other`."""
        self._buffer.swap(other._buffer)
        self._hold.swap(other._hold)
        self._leases.swap(other._leases, <PyObject*> self, <PyObject*> other, let_go)
        self._stream, other._stream = other._stream, self._stream
        self._mr, other._mr = other._mr, self._mr
        self._counted, other._counted = other._counted, self._counted
        self._counted_at, other._counted_at = other._counted_at, self._counted_at
        for shared in (self._share, other._share):
            if shared is not None:
                (<Share> shared).forget()
        self._is_shared, other._is_shared = other._is_shared, self._is_shared
        self._used_by, other._used_by = other._used_by, self._used_by

    cdef lib.device_buffer* made(self) except NULL:
        """The C++ buffer; RuntimeError if ``__init__`` has not made it."""
        if not self._buffer.has_value():
            raise RuntimeError(f"this {type(self).__name__} was never initialised: call super().__init__(…)")
        return &dereference(self._buffer)

    cdef void* _address(self) except? NULL:
        """What array libraries are told: null where there are no bytes, whatever memory is kept."""
        return self.made().data() if self.made().size() != 0 else NULL

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
            raise BufferError("the memory cannot move or be freed: a view of it (memoryview, array, DLPack) is "
                              "alive, or another process has it open")

    cdef _busy(self):
        return (f"this {type(self).__name__} is in use by another call: while one thread resizes, closes or "
                "initialises a buffer no other may use it; give each thread a buffer of its own, or guard it with a "
                "lock")

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
        if self._share is not None:
            self._share.forget()
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
        self._uncount()
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
        """Tell the ledger what the buffer holds now, for the client "cenote". What it held before is not free yet."""
        cdef lib.device_buffer* buffer = &dereference(self._buffer)
        if self._counted_at == buffer.data():
            return 0
        self._uncount()
        if buffer.data() != NULL:
            self._counted, self._counted_at = buffer.capacity(), buffer.data()
            lib.client_holds(_client, buffer.device(), self._counted_at, self._counted,
                             self._stream._handle)
        return 0

    cdef int _uncount(self) except -1:
        if self._counted_at != NULL:
            lib.client_lets_go(_client, dereference(self._buffer).device(), self._counted_at, self._counted)
            self._counted, self._counted_at = 0, NULL
        return 0

    cdef _copy_out(self, lib.device_buffer* buffer, void* target, Stream on):
        """Queue a copy of all bytes. `buffer` is in use by the caller."""
        with nogil:
            buffer.begin_use(on._handle)
            lib.copy_async(target, buffer.data(), buffer.size(), on._handle, buffer.device())
        self._was_used_on(on)

    cdef _copy_in(self, const void* source, size_t count, Stream on, BufferMemory written_by=None,
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

    cdef _check_room(self, object count):
        if count > self.made().size():
            raise ValueError(f"{count} bytes do not fit into a buffer of {self.made().size()}")

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


@cython.no_gc_clear
cdef class Export:
    """While it lives, the memory of a buffer stays where it is."""

    def __cinit__(self, BufferMemory memory not None):
        self.memory = memory
        memory._exports += 1

    def __dealloc__(self):
        self.memory._exports -= 1


cdef class Share:
    """One buffer's memory, offered to other processes."""

    cdef int forget(self) except -1:
        """The buffer ends, or has other memory now."""
        self._buffer = NULL
        self._offer.reset()
        return 0

    def __call__(self):
        """What keeps the memory where it is while another process uses it; None if it is not there any more."""
        cdef PyObject* alive = lib.reference_if_alive(self._buffer)
        if alive == NULL:
            return None
        cdef BufferMemory buffer = <BufferMemory> alive
        lib.drop_reference(alive)  # `buffer` has one now
        if self._offer.get() == NULL or buffer._is_moving or not buffer._buffer.has_value():
            return None
        return Export(buffer) if buffer.made().data() == self._offer.get().address() else None


# Counts no reference of its own: the collector forbids it. The argument is borrowed.
cdef int traverse(BufferMemory self, visitproc visit, void* argument) noexcept:
    cdef int result = _traversal(<PyObject*> self, visit, argument)
    return result if result != 0 else self._leases.visit(visit, argument)


cdef traverseproc _traversal = (<PyTypeObject*> BufferMemory).tp_traverse
(<PyTypeObject*> BufferMemory).tp_traverse = <traverseproc> traverse


cdef void let_go(object holder) noexcept:
    """End a buffer that is garbage together with its resource (python_lease.hpp)."""
    cdef BufferMemory self = holder
    if self._exports != 0:
        return
    self._end()
    self._buffer.reset()
    self._leases.drop(<PyObject*> self)


cdef wait_for(Stream stream, int device):
    """Wait until the work queued on a stream is done; `device` is that of a default stream."""
    with nogil:
        lib.synchronize(stream._handle, device)


cdef finish(Stream stream, int device):
    """A call on the default stream is finished when it returns."""
    if stream._handle.is_legacy_default():
        wait_for(stream, device)
