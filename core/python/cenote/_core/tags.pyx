"""Tags of allocations. Documented in `cenote.registry`."""
from contextvars import ContextVar

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport text_argument

# The running context's tags: the innermost one's number, and those around it in the same form; None for none.
cdef object _innermost = ContextVar("cenote_tag", default=None)
cdef bint _is_found = False


cdef int read_tag() except -1:
    tags = _innermost.get()
    return 0 if tags is None else <int> tags[0]


cdef find_tags():
    """Have the core ask for the tag from now on; before a program has used one it does not."""
    global _is_found
    if not _is_found:
        lib.find_python_tags(read_tag)
        _is_found = True


cdef object without(tags, int index):
    """The tags without the innermost one of that number: one that a generator has entered is not always the first."""
    inner = []
    around = tags
    while around is not None and around[0] != index:
        inner.append(around[0])
        around = around[1]
    if around is None:
        return tags  # it was entered in another context
    around = around[1]
    for each in reversed(inner):
        around = (each, around)
    return around


cdef class tag:
    """A label for what is allocated in a ``with`` block: ``with cenote.tag("kv cache"): …``.

    Every allocation of a client (PyTorch, CuPy, Numba, cenote's own buffers, …) has the innermost tag of its context.
    So each thread and each task of asyncio has its own, and a task inherits the tag of whoever started it. A thread
    that a program starts has none. `usage` and errors say what each tag holds.

    Parameters
    ----------
    name : str
        What it is called. The same name gives the same tag. An empty one is no tag: what is allocated inside has none.

    Raises
    ------
    TypeError
        If `name` is no str.

    Notes
    -----
    One object may be entered again and again, by several threads and tasks at a time, and decorates a function, too. A
    process has 1022 tags; all further ones are one, ``(other tags)``.
    """

    cdef readonly str name
    cdef int _index

    def __init__(self, str name not None):
        cdef lib.string text = text_argument("name", name)
        self._index = lib.register_tag(text)
        self.name = name

    def __enter__(self):
        find_tags()
        _innermost.set((self._index, _innermost.get()))
        lib.forget_tag()
        return self

    def __exit__(self, *_):
        _innermost.set(without(_innermost.get(), self._index))
        lib.forget_tag()

    def __call__(self, function):
        if not callable(function):
            raise TypeError(f"a tag decorates a function, not {type(function).__name__}")
        import functools
        import inspect

        if inspect.iscoroutinefunction(function):
            @functools.wraps(function)
            async def tagged(*args, **kwargs):
                with self:
                    return await function(*args, **kwargs)
        else:
            @functools.wraps(function)
            def tagged(*args, **kwargs):
                with self:
                    return function(*args, **kwargs)
        return tagged

    def __reduce_ex__(self, protocol):
        return type(self), (self.name,)

    def __repr__(self):
        return f"cenote.tag({self.name!r})"
