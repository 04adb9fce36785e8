"""Numbers and texts that Python callers pass, as the core takes them: a number has no fraction and is no truth value.

Each function is told the name of the argument, which its errors begin with.
"""
from cpython.bool cimport PyBool_Check
from cpython.exc cimport PyErr_Clear, PyErr_Occurred
from cpython.long cimport PyLong_CheckExact
from cpython.number cimport PyIndex_Check, PyNumber_Index
from libc.stdint cimport INT32_MAX, INT32_MIN
from libcpp.optional cimport optional


cdef extern from "Python.h":
    size_t PyLong_AsSize_t(object number) noexcept  # where it fails, -1 with the error set


cdef inline str shown_number(object number):
    """A number as an error shows it: one of thousands of digits is not written out, which Python forbids."""
    return str(number) if number.bit_length() <= 128 else f"a number of {number.bit_length()} bits"


cdef inline object int_argument(str name, object value, str wanted="an int"):
    """An int; TypeError for what is none (1.5, "1", None), and for True and False, which stand for no number."""
    if PyLong_CheckExact(value):
        return value
    if not PyBool_Check(value) and PyIndex_Check(value):
        try:
            return PyNumber_Index(value)
        except TypeError:  # an array of several numbers
            pass
    raise TypeError(f"{name} must be {wanted}, not {type(value).__name__}")


cdef inline int small_argument(str name, object value) except? -1:
    """An int of 32 bits; OverflowError outside."""
    number = int_argument(name, value)
    if not INT32_MIN <= number <= INT32_MAX:
        raise OverflowError(f"{name} must be from -2**31 to 2**31 - 1, not {shown_number(number)}")
    return number


cdef inline size_t count_argument(str name, object value, str wanted="an int") except? <size_t> -1:
    """An int from 0 to 2^64 - 1; OverflowError outside."""
    cdef size_t count
    if PyLong_CheckExact(value):  # nearly always, and then at once
        count = PyLong_AsSize_t(value)
        if count != <size_t> -1:
            return count
        PyErr_Clear()
    number = int_argument(name, value, wanted)
    count = PyLong_AsSize_t(number)
    if count == <size_t> -1 and PyErr_Occurred() != NULL:
        PyErr_Clear()
        raise OverflowError(f"{name} must be from 0 to 2**64 - 1, not {shown_number(number)}")
    return count


cdef inline size_t bytes_argument(str name, object value) except? <size_t> -1:
    """A number of bytes as int; a text is none here, and who passes one is told what makes a number of it."""
    if isinstance(value, str):
        raise TypeError(f"{name} must be a number of bytes as int, not str; "
                        "cenote.units.parse_bytes makes one of a text such as '1GiB'")
    return count_argument(name, value, "a number of bytes as int")


cdef inline size_t address_argument(str name, object value) except? <size_t> -1:
    """An address as int."""
    return count_argument(name, value, "an address as int")


cdef inline int device_argument(object device) except? -1:
    """The number of a device, for the core to check; IndexError already for what is too large for it."""
    number = int_argument("device", device, "the number of a device as int")
    if not INT32_MIN <= number <= INT32_MAX:
        raise IndexError(f"there is no device {shown_number(number)}")
    return number


cdef inline bytes text_argument(str name, str text):
    """A text as the core has it, in UTF-8; what stands for the bytes of a file's name becomes those again."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(f"{name} has a character that no text can have: {ascii(text)}") from None


cdef size_t required_size_argument(str name, object size) except? <size_t> -1
cdef optional[size_t] size_argument(str name, object size) except *
