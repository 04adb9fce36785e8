"""The environment of the process, as far as it may be followed: what the core makes of it, for what Python reads."""
import os

from cenote._core cimport libcenote as lib


def environment_variable(str name not None) -> str | None:
    """The value of a variable; None where it is not set or empty, and in secure execution (a set-user-id program)."""
    cdef bytes encoded = name.encode()
    cdef const char* value = lib.environment_variable(encoded)
    return None if value is NULL else os.fsdecode(<bytes>value)


def is_secure_execution() -> bool:
    """Whether the process has rights that its caller does not have, so that no variable is followed."""
    return lib.is_secure_execution()
