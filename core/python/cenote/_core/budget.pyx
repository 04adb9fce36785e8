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


def budget_of(device) -> tuple[int | None, int]:
    """The limit, None where there is none, and what counts for it, in bytes."""
    cdef int number = device_argument(device)
    cdef lib.budget_figures figures
    with nogil:
        figures = lib.budget_of(number)
    return figures.limit.value() if figures.limit.has_value() else None, figures.held
