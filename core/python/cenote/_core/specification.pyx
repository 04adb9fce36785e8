"""Specifications: resources as a text describes them. Documented in `cenote.mr`."""
from libcpp.memory cimport shared_ptr
from libcpp.optional cimport optional
from libcpp.vector cimport vector

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport device_argument, text_argument
from cenote._core.memory_resource cimport DeviceMemoryResource, wrap


def from_spec(str text not None, device=None) -> DeviceMemoryResource:
    """Make the resources that a specification describes.

    Parameters
    ----------
    text : str
        Resources, outermost first, such as ``"statistics | pool:max=50% | virtual"``. Sizes are in bytes, or
        have a unit (KB = 1000, KiB = 1024), or are a percentage of the device's free memory; those of a pool are
        rounded down to 256. A chain that ends with a pool stands on ``virtual``, on a device that has virtual memory;
        one that ends with another resource that needs an upstream stands on ``cuda``.
    device : int, optional
        The device; the current one if not given.

    Returns
    -------
    DeviceMemoryResource
        The outermost one.

    Raises
    ------
    ValueError
        Names the word that is wrong and the words that are known. What `DeviceMemoryResource.specification` says of
        a resource can be passed here, but for what a program alone can make: callbacks, views, bins that were added.
    IndexError
        There is no such device.
    """
    cdef lib.string specification = text_argument("text", text)
    cdef shared_ptr[lib.memory_resource] resource
    cdef bint given = device is not None
    cdef int on = device_argument(device) if given else 0
    with nogil:
        resource = lib.make_resource(specification, on if given else lib.current_device())
    return wrap(resource)


def check_specification(str text not None) -> None:
    """ValueError, as `from_spec` raises it, for a word or a value that is wrong. Makes nothing and calls no driver."""
    cdef lib.string specification = text_argument("text", text)
    with nogil:
        lib.check_specification(specification)


def known_specifications() -> str:
    """Each resource that a specification can name, with its parameters, one a line."""
    return lib.known_specifications().decode()


def specification_words(str specification not None, device=None) -> list[str]:
    """The words of a specification, outermost first, with the source that stands under it where it names none.

    That is the source on `device`; without one, that on a device with virtual memory, and no driver call is made then.
    ValueError for what no device would take.
    """
    cdef lib.string text = text_argument("specification", specification)
    cdef optional[int] on
    if device is not None:
        on = device_argument(device)
    cdef vector[lib.string] words
    with nogil:
        words = lib.specification_words(text, on)
    return [word.decode("utf-8", "surrogateescape") for word in words]


def specification_value(str text not None) -> str:
    """A text as the value of a parameter: in quotes where it holds what would end it."""
    cdef lib.string value = text_argument("text", text)
    cdef lib.string spelled
    with nogil:
        spelled = lib.quoted(value, b",|")
    return spelled.decode("utf-8", "surrogateescape")
