from cenote cimport _libcenote as lib


cdef class DeviceMemoryResource:
    cdef lib.shared_ptr[lib.memory_resource] _resource
    cdef object __weakref__
    cdef lib.memory_resource* made(self) except NULL nogil


cdef class UpstreamResourceAdaptor(DeviceMemoryResource):
    cdef readonly DeviceMemoryResource upstream_mr


cdef DeviceMemoryResource wrap(lib.shared_ptr[lib.memory_resource] resource)
