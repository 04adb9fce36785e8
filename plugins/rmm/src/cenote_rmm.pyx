# cython: language_level=3
# distutils: language=c++
"""RMM's Python resource over cenote's current one. Compiled on the user's machine by ``cenote build rmm``."""
from cython.operator cimport dereference
from libcpp.memory cimport unique_ptr
from rmm.librmm.memory_resource cimport device_async_resource_ref
from rmm.pylibrmm.memory_resource cimport DeviceMemoryResource


cdef extern from "current_resource.hpp" namespace "cenote_rmm" nogil:
    cdef cppclass current_resource:
        current_resource(int client, int device)

cdef extern from "cenote/cenote.h" nogil:
    int cenote_register_client(const char* name)

cdef extern from * nogil:
    """
    namespace {
    rmm::device_async_resource_ref ref_to(cenote_rmm::current_resource& resource) { return {resource}; }
    }
    """
    device_async_resource_ref ref_to(current_resource& resource)


cdef class CenoteMemoryResource(DeviceMemoryResource):
    """RMM's memory of one device from whatever resource of cenote's is current there; counted for ``rmm``.

    Parameters
    ----------
    device : int
        The device.
    """

    cdef unique_ptr[current_resource] _resource

    def __cinit__(self, int device):
        self._resource.reset(new current_resource(cenote_register_client(b"rmm"), device))
        self.c_ref = ref_to(dereference(self._resource))
