cdef const unsigned char[::1] readable_argument(str name, object host) except *
cdef unsigned char[::1] writable_argument(str name, object host) except *
