"""Files that Python writes in one go, such as pictures."""

from __future__ import annotations

import fcntl
import os
import stat

from cenote._core.output_file import open_for_writing

__all__ = ["write_whole"]


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Give a file a new content. Of processes that do so at a time one comes after the other.

    Parameters
    ----------
    path : str or os.PathLike
        A link is followed if root made it or this user; in secure execution (a set-user-id program) none is.
    content : bytes
        What the file then has, and nothing else.

    Raises
    ------
    OSError
        If the file cannot be opened or written, with its name. A part of the content is not left in it.
    """
    descriptor, is_inherited = open_for_writing(path)
    with os.fdopen(descriptor, "ab", buffering=0) as file:
        is_own = stat.S_ISREG(os.fstat(descriptor).st_mode) and not is_inherited
        if is_own:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(0)
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            if is_own:
                file.truncate(0)
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
