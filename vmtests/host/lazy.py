"""A property that is made once, also when several threads ask at the same time."""

import threading
from collections.abc import Callable
from typing import Generic, Self, TypeVar, overload

_T = TypeVar("_T")


class lazy(Generic[_T]):  # noqa: N801 - it is used like `property`
    """What `functools.cached_property` was up to Python 3.11: from 3.12 on that has no lock."""

    def __init__(self, make: Callable[..., _T]) -> None:
        self.__doc__ = make.__doc__
        self._make = make
        self._lock = threading.RLock()

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> _T: ...
    def __get__(self, instance: object | None, owner: type) -> Self | _T:
        if instance is None:
            return self
        # Whoever comes later finds the value in the instance and never gets here.
        with self._lock:
            made = instance.__dict__
            if self._name not in made:
                made[self._name] = self._make(instance)
            value: _T = made[self._name]
            return value
