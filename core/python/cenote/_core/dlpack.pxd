from cenote._core.buffer_memory cimport BufferMemory


cdef tuple dl_device_of(BufferMemory memory)
cdef object dl_capsule_of(BufferMemory buffer, object stream, object max_version, object dl_device, object copy)
