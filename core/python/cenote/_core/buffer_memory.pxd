cimport cython

from cenote._core cimport libcenote as lib
from cenote._core.memory_resource cimport DeviceMemoryResource
from cenote._core.stream cimport Stream


cdef class Share


cdef class BufferMemory:
    cdef lib.optional_device_buffer _buffer
    cdef Stream _stream
    # One of these two keeps the resource, so that what the buffer itself has of it is hardly ever the last.
    cdef DeviceMemoryResource _mr  # None until somebody asks, where the program holds no object of it
    cdef lib.resource_hold _hold  # empty where a resource was given
    cdef lib.leases _leases  # of a resource that calls Python functions (python_lease.hpp)
    cdef size_t _counted  # what the ledger was told of: the bytes, and where
    cdef const void* _counted_at
    cdef Py_ssize_t _exports  # views and capsules that live
    cdef bint _is_shared  # others use it on streams that are not ours to name later
    cdef lib.reach _used_by  # whose streams those may be
    cdef Share _share  # what offers the memory to other processes; None if nothing does

    # Calls let go of the interpreter's lock. What they need of the object they take before; what changes in it they
    # change after, under the lock. Meanwhile they are written down here, so that the memory stays where it is.
    cdef Py_ssize_t _users  # calls underway that use the memory
    cdef bint _is_moving  # a call is underway that moves or frees it

    cdef int _make(self, object ptr, object size, object stream, object mr) except -1
    cdef int _open_waiting(self, const void* source, size_t bytes, Stream on,
                           const lib.shared_ptr[lib.memory_resource]& resource) except -1
    cdef int _hold_current_resource(self) except -1
    cdef int _drop_hold(self) except -1
    cdef _swap(self, BufferMemory other)
    cdef lib.device_buffer* made(self) except NULL
    cdef void* _address(self) except? NULL
    cdef lib.device_buffer* _begin(self) except NULL
    cdef lib.device_buffer* _begin_move(self) except NULL
    cdef _require_unused(self)
    cdef _busy(self)
    cdef _was_used_on(self, Stream on)
    cdef _use(self, Stream stream)
    cdef _share_with(self, Stream others)
    cdef bint _is_on(self, Stream stream)
    cdef Stream _stream_here(self)
    cdef _synchronize(self)
    cdef bint _keeps_resource(self)
    cdef int _end(self) except -1
    cdef int _free(self, lib.device_buffer* memory) except -1
    cdef int _count(self) except -1
    cdef int _uncount(self) except -1
    cdef _copy_out(self, lib.device_buffer* buffer, void* target, Stream on)
    cdef _copy_in(self, const void* source, size_t count, Stream on, BufferMemory written_by=*,
                  Stream written_on=*)
    cdef _check_room(self, object count)
    cdef _reserve(self, lib.device_buffer* buffer, size_t capacity, Stream on)
    cdef _follow(self, lib.device_buffer* buffer, Stream on)
    cdef _move(self, lib.device_buffer* buffer, size_t capacity, Stream on)


@cython.final
cdef class Export:
    cdef BufferMemory memory


@cython.final
cdef class Share:
    cdef lib.PyObject* _buffer  # borrowed: the buffer forgets us before it ends
    cdef lib.unique_ptr[lib.block_offer] _offer
    cdef object _handle

    cdef int forget(self) except -1


cdef wait_for(Stream stream, int device)
cdef finish(Stream stream, int device)
