"""Numbers that Python callers pass, as the core takes them: what has no fraction and is no truth value."""
from cpython.bool cimport PyBool_Check
from cpython.number cimport PyNumber_Index
from libc.stdint cimport INT32_MAX, INT32_MIN


cdef inline object int_argument(object number):
    """An int; TypeError for what is none (1.5, "1", None), and for True and False, which stand for no number."""
    if PyBool_Check(number):
        raise TypeError("expected a number as int, not bool")
    return PyNumber_Index(number)


cdef inline size_t bytes_argument(object bytes) except? <size_t> -1:
    """An int from 0 to 2^64 - 1, of bytes or an address; OverflowError outside."""
    return <size_t> int_argument(bytes)


cdef inline int device_argument(object device) except? -1:
    """The number of a device, for the core to check; IndexError already for what is too large for it."""
    number = int_argument(device)
    if not INT32_MIN <= number <= INT32_MAX:
        raise IndexError(f"there is no device {number}")
    return number
