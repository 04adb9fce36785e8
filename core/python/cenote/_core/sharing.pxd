from cenote._core.stream cimport Stream


cdef object share_of(object buffer, Stream on)
cdef object open_into(object buffer, object handle, Stream on)
