"""Functions whose calls are counted: each call in a scope, which is entered while the call runs, and only then.

A call of a generator function runs bit by bit, as it is asked for values; so does one of a coroutine function, as it is
resumed. In between others run, whom the scope does not count.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cenote._core.statistics import CountingScope

    Begin = Callable[[], CountingScope]
    End = Callable[[CountingScope], None]


def profiled_function(function: Callable[..., Any], begin: Begin, end: End) -> Callable[..., Any]:
    """Make a function that calls `function` in a scope, and is of the same kind.

    Parameters
    ----------
    function : callable
        Of any kind. What it returns decides too: a plain function may return a coroutine, as wrappers do.
    begin, end : callable
        Make the scope of a call, and take it when the call has ended.
    """

    def begun(*args: Any, **kwargs: Any) -> tuple[Any, CountingScope | None]:
        """Return what the function does, and the scope if the call has not ended with that."""
        scope, result = begin(), None
        scope.enter()
        try:
            result = function(*args, **kwargs)
        finally:
            scope.leave()
            is_suspended = isinstance(result, tuple(_SUSPENDED))
            if not is_suspended:
                end(scope)
        return result, scope if is_suspended else None

    def call(*args: Any, **kwargs: Any) -> Any:
        result, scope = begun(*args, **kwargs)
        return result if scope is None else _SUSPENDED[type(result)](result, scope, end)

    async def coroutine_function(*args: Any, **kwargs: Any) -> Any:
        return await call(*args, **kwargs)

    def generator_function(*args: Any, **kwargs: Any) -> Any:
        return (yield from call(*args, **kwargs))

    profiled: Callable[..., Any] = call
    called = _what_is_called(function)
    if inspect.iscoroutinefunction(called):
        profiled = coroutine_function
    elif inspect.isasyncgenfunction(called):
        profiled = _asynchronous_generator_function(begun, end)
    elif inspect.isgeneratorfunction(called):
        is_awaited = called.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE
        profiled = types.coroutine(generator_function) if is_awaited else generator_function
    return functools.wraps(function)(profiled)


def _what_is_called(function: Any) -> Any:
    """Find the function that a call of an object comes to."""
    while isinstance(function, (functools.partial, staticmethod)):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    return function if inspect.isroutine(function) or isinstance(function, type) else type(function).__call__


def _bits(suspended: Any, scope: CountingScope) -> Generator[Any, Any, Any]:
    """Run a generator, a coroutine, or a step of an asynchronous generator; each bit in the scope."""

    def in_scope(run: Callable[..., Any], *argument: Any) -> Any:
        scope.enter()
        try:
            return run(*argument)
        finally:
            scope.leave()

    run, argument = suspended.send, None
    while True:
        try:
            value = in_scope(run, argument)
        except StopIteration as stop:
            return stop.value
        try:
            run, argument = suspended.send, (yield value)
        except GeneratorExit:
            in_scope(suspended.close)
            raise
        except BaseException as error:
            run, argument = suspended.throw, error


class _InBits:
    """What can be awaited of `_bits`."""

    def __init__(self, suspended: Any, scope: CountingScope) -> None:
        self._bits = _bits(suspended, scope)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._bits


def _generator(suspended: Generator[Any, Any, Any], scope: CountingScope, end: End) -> Generator[Any, Any, Any]:
    try:
        return (yield from _bits(suspended, scope))
    finally:
        end(scope)


async def _coroutine(suspended: Any, scope: CountingScope, end: End) -> Any:
    try:
        return await _InBits(suspended, scope)
    finally:
        end(scope)


def _asynchronous_generator_function(begun: Callable[..., Any], end: End) -> Callable[..., AsyncGenerator[Any, Any]]:
    async def profiled(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        suspended, scope = begun(*args, **kwargs)
        try:
            step = suspended.asend(None)
            while True:
                try:
                    value = await _InBits(step, scope)
                except StopAsyncIteration:
                    return
                try:
                    step = suspended.asend((yield value))
                except GeneratorExit:
                    raise
                except BaseException as error:
                    step = suspended.athrow(error)
        finally:
            try:
                await _InBits(suspended.aclose(), scope)
            finally:
                end(scope)

    return profiled


def _asynchronous_generator(
    suspended: AsyncGenerator[Any, Any], scope: CountingScope, end: End
) -> AsyncGenerator[Any, Any]:
    return _asynchronous_generator_function(lambda: (suspended, scope), end)()


# How to go on with what a function has returned that has not run yet, or not to its end.
_SUSPENDED: dict[type, Callable[[Any, CountingScope, End], Any]] = {
    types.GeneratorType: _generator,
    types.CoroutineType: _coroutine,
    types.AsyncGeneratorType: _asynchronous_generator,
}
