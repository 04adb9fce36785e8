from libcpp.memory cimport unique_ptr

from cenote._core cimport libcenote as lib
from cenote._core.buffer_memory cimport BufferMemory


cdef class DeviceBuffer(BufferMemory):
    cdef unique_ptr[lib.device_buffer] release(self) except *

    @staticmethod
    cdef DeviceBuffer adopt(unique_ptr[lib.device_buffer] memory)
