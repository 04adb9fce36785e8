from cenote._core cimport libcenote as lib


cdef class Stream:
    cdef lib.stream_ref _handle
    cdef lib.shared_ptr[lib.cuda_stream] _owned
    cdef readonly object owner
    cdef readonly int device
    cdef object __weakref__
    cdef object _witness
    cdef bint is_made(self)
    cdef int require_made(self) except -1
    cdef int require_unmade(self) except -1
    cdef bint may_be_gone(self)


cdef Stream as_stream(object obj)
cdef lib.stream_ref stream_argument(object obj) except *
cdef int flags_argument(object flags) except -1
