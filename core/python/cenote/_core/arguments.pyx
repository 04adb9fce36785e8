"""Sizes and numbers that Python callers pass. The others, which need nothing of the core, are in arguments.pxd."""
from libcpp.optional cimport make_optional, optional

from cenote._core cimport libcenote as lib


def parse_bytes(str text not None) -> int:
    """A number of bytes from a text such as "1GiB"."""
    cdef optional[size_t] parsed = lib.parse_bytes(text.encode("utf-8", "replace"))
    if not parsed.has_value():
        shown = repr(text if len(text) <= 60 else text[:57] + "...")
        raise ValueError(f"Could not parse {shown} as a number of bytes: write 4096, '512MiB' or '1.5 GB'")
    return parsed.value()


def whole_number(str name, value, str wanted) -> int:
    """The int of an argument; TypeError, which says what is wanted, for what is none."""
    return int_argument(name, value, wanted)


cdef size_t required_size_argument(str name, object size) except? <size_t> -1:
    """A number of bytes from an int, or a text such as "1GiB"."""
    if isinstance(size, str):
        try:
            return parse_bytes(size)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return count_argument(name, size, "a number of bytes as int, or a text such as '1GiB'")


cdef optional[size_t] size_argument(str name, object size) except *:
    """As `required_size_argument`; nothing for None."""
    cdef optional[size_t] none
    if size is None:
        return none
    return make_optional[size_t](required_size_argument(name, size))
