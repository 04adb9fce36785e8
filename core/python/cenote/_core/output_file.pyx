"""How cenote opens a file to write to, for what Python writes itself."""
import os

from cenote._core cimport libcenote as lib


def open_for_writing(path) -> tuple[int, bool]:
    """Open a file for writing at its end, as the core opens its logs.

    A link is followed if root made it or this user; in secure execution (a set-user-id program) none is.

    Returns
    -------
    descriptor : int
    is_inherited : bool
        Whether it was open already, under a name such as ``/dev/stdout``.

    Raises
    ------
    ValueError
        If the name has a null character.
    OSError
        If it cannot be opened.
    """
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError(f"a file's name cannot have a null character: {path!r}")
    cdef lib.string name = encoded
    cdef lib.opened_file opened
    with nogil:
        opened = lib.open_for_writing(name)
    if opened.descriptor < 0:
        raise OSError(opened.error, opened.why.decode(errors="replace"), os.fspath(path))
    return opened.descriptor, opened.is_inherited
