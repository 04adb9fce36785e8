"""Memory of the host that Python callers pass: anything with the buffer protocol that is a row of bytes."""


cdef const unsigned char[::1] readable_argument(str name, object host) except *:
    """The memory of the host that can be read."""
    if host is None:
        raise TypeError(refusal_of_host(name, host, "must not be None"))
    try:
        return host
    except BufferError as error:
        raise BufferError(refusal_of_host(name, host, error)) from None
    except ValueError as error:
        raise ValueError(refusal_of_host(name, host, error)) from None
    except TypeError as error:
        raise TypeError(refusal_of_host(name, host, error)) from None


cdef unsigned char[::1] writable_argument(str name, object host) except *:
    """The memory of the host that can be written."""
    readable_argument(name, host)  # whose errors say more
    try:
        return host
    except (BufferError, ValueError):  # NumPy's arrays raise the second
        raise BufferError(f"{name} cannot be written: this {type(host).__name__} is read-only") from None


cdef str refusal_of_host(str name, object host, object why):
    return (f"{name} must be a contiguous buffer of unsigned bytes, such as bytes or a numpy array of uint8, "
            f"not {type(host).__name__} ({why})")
