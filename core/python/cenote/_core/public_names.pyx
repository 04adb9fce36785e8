"""Where users find what is compiled here: the public module that a class or a function says it is of."""
from cenote._core.libcenote cimport PyType_Modified, PyTypeObject

cdef list _kept = []  # full names, which classes point to for ever


def publish(dict module not None) -> None:
    """Have the compiled things of a public module's ``__all__`` say that they are of that module.

    Parameters
    ----------
    module : dict
        The module's ``globals()``.
    """
    for name in module["__all__"]:
        thing = module[name]
        if not hasattr(thing, "__name__") or not thing.__module__.startswith("cenote._core."):
            continue
        try:
            thing.__module__ = module["__name__"]
        except TypeError:  # a class that is static, whose module stands in its full name
            rename(thing, f"{module['__name__']}.{name}".encode())


cdef rename(type cls, bytes full_name):
    _kept.append(full_name)
    (<PyTypeObject*> cls).tp_name = full_name
    PyType_Modified(cls)
