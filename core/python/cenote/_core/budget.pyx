"""What a process may hold of its devices. Documented in `cenote.budgets`."""
from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport device_argument, text_argument


def set_budget(str amount not None, device=None) -> None:
    """For one device or, if none is given, for all that have none of their own; an empty text for no budget."""
    cdef lib.string text = text_argument("amount", amount)
    cdef bint given = device is not None
    cdef int on = device_argument(device) if given else 0
    with nogil:
        if given:
            lib.set_budget_of_device(on, text)
        else:
            lib.set_budget_of_all(text)


def set_budget_by(str set_by not None, device, str amount not None) -> None:
    """One more bound on a device, of `set_by`, whom the error names; an empty text for none."""
    cdef lib.string name = text_argument("set_by", set_by)
    cdef lib.string text = text_argument("amount", amount)
    cdef int on = device_argument(device)
    with nogil:
        lib.set_budget_by(name, on, text)


def share_budget(device, int file) -> None:
    """Have the device's budget hold for all processes that have joined the open file; -1 for this one alone.

    The descriptor is kept, or closed where that fails.
    """
    cdef int number = device_argument(device)
    with nogil:
        lib.share_budget(number, file)


def requests_of_budget(device) -> int:
    """How often a process has asked those that share the device's budget for what they do not use."""
    cdef int number = device_argument(device)
    cdef unsigned int asked
    with nogil:
        asked = lib.requests_of_budget(number)
    return asked


def device_uuid(device) -> str:
    """The device's UUID, the same in every process, as hexadecimal digits."""
    cdef int number = device_argument(device)
    cdef lib.string text
    with nogil:
        text = lib.device_uuid(number)
    return text.decode()


def budget_of(device) -> tuple[int | None, int, int]:
    """The limit, None where there is none, and what counts for it of this process and of all that share it."""
    cdef int number = device_argument(device)
    cdef lib.budget_figures figures
    with nogil:
        figures = lib.budget_of(number)
    return figures.limit.value() if figures.limit.has_value() else None, figures.held, figures.shared
