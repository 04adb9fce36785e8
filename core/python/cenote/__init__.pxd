# What Cython code outside of the package uses: ``cimport cenote``.
#
# The classes are those of ``import cenote``; the C++ types are those of cenote's headers, of which libcenote.pxd
# declares what Cython needs. The page of Cython says how such a module is built.
from libcpp.memory cimport shared_ptr

from cenote._core.device_buffer cimport DeviceBuffer
from cenote._core.libcenote cimport cuda_stream, device_buffer, memory_resource, stream_ref
from cenote._core.memory_resource cimport DeviceMemoryResource
from cenote._core.stream cimport Stream


cdef inline stream_ref stream_of(Stream stream) except *:
    """The C++ stream; it lives as long as the object."""
    stream.require_made()
    return stream._handle


cdef inline shared_ptr[memory_resource] resource_of(DeviceMemoryResource resource) except *:
    """The C++ resource. RuntimeError if the object was never initialised."""
    return resource.held()
