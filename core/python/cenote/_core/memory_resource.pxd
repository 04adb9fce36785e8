from libcpp.memory cimport shared_ptr

from cenote._core cimport libcenote as lib
from cenote._core.stream cimport Stream


cdef class DeviceMemoryResource:
    cdef shared_ptr[lib.memory_resource] _resource
    cdef shared_ptr[lib.python_object] _calls  # what the C++ resource calls; null for most
    cdef shared_ptr[lib.standing] _standing  # not null where functions of Python's are called, here or further down
    cdef object __weakref__
    cdef lib.memory_resource* made(self) except NULL nogil
    cdef shared_ptr[lib.memory_resource] held(self) except *
    cdef void* _allocate_waiting(self, Stream on, size_t bytes, size_t alignment) except? NULL
    cdef int _deallocate_waiting(self, Stream on, void* pointer, size_t bytes, size_t alignment) except -1


cdef class UpstreamResourceAdaptor(DeviceMemoryResource):
    cdef readonly DeviceMemoryResource upstream_mr
    cdef lib.leases _leases  # those that the C++ resource has
    cdef int hold_lease(self, shared_ptr[lib.memory_resource] lease, DeviceMemoryResource of, long users) except -1


cdef shared_ptr[lib.memory_resource] resource_argument(str name, object resource) except *
cdef shared_ptr[lib.memory_resource] upstream_argument(object upstream_mr) except *
cdef bint owns_resource(DeviceMemoryResource self) noexcept
cdef register_class(str kind, object cls)
cdef become(DeviceMemoryResource resource, shared_ptr[lib.memory_resource]& made)
cdef remember(DeviceMemoryResource resource)
cdef DeviceMemoryResource known(const shared_ptr[lib.memory_resource]& resource)
cdef DeviceMemoryResource wrap(shared_ptr[lib.memory_resource] resource)
