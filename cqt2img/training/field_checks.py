"""Checks of the fields of a frozen settings dataclass."""

import math
import os
from collections.abc import Sequence
from typing import NoReturn

from cqt2img.errors import InputError


class FieldChecker:
    """Check the fields of a frozen dataclass and store NumPy scalars as Python's own.

    A grid search sets NumPy scalars; torch and JSON accept only Python numbers.

    Parameters
    ----------
    owner : object
        The dataclass instance, in its `__post_init__`.
    caller : str
        Start of the error message, such as "fit".
    names : dict of str to str, optional
        Names of arguments that differ from the names of their fields.
    """

    def __init__(
        self, owner: object, caller: str, names: dict[str, str] | None = None
    ) -> None:
        self._owner = owner
        self._caller = caller
        self._names = names or {}

    def integer(
        self,
        name: str,
        minimum: int,
        maximum: int | None = None,
        *,
        optional: bool = False,
    ) -> None:
        """Check that a field is an integer in a closed interval.

        Parameters
        ----------
        name : str
            The field.
        minimum : int
            Smallest allowed value.
        maximum : int, optional
            Largest allowed value.
        optional : bool
            Whether None is allowed.

        Raises
        ------
        InputError
            If the field is anything else.
        """
        value = self._python_value(name)
        if optional and value is None:
            return
        if maximum is None:
            rule = f"an integer of {minimum} or more"
        else:
            rule = f"an integer from {minimum} to {maximum}"
        if not isinstance(value, int) or isinstance(value, bool):
            self.fail(name, rule, optional=optional)
        if value < minimum or (maximum is not None and value > maximum):
            self.fail(name, rule, optional=optional)
        self._store(name, value)

    def number(
        self,
        name: str,
        rule: str,
        *,
        low: float = 0.0,
        high: float = math.inf,
        include_low: bool = True,
        include_high: bool = False,
        optional: bool = False,
    ) -> None:
        """Check that a field is a finite number in an interval.

        Parameters
        ----------
        name : str
            The field.
        rule : str
            The interval in words, such as "a number above 0".
        low, high : float
            Limits of the interval.
        include_low, include_high : bool
            Whether the limits themselves are allowed.
        optional : bool
            Whether None is allowed.

        Raises
        ------
        InputError
            If the field is anything else.
        """
        value = self._python_value(name)
        if optional and value is None:
            return
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.fail(name, rule, optional=optional)
        is_inside = low < value < high
        is_low = include_low and value == low
        is_high = include_high and value == high
        if not (is_inside or is_low or is_high):
            self.fail(name, rule, optional=optional)
        self._store(name, float(value))

    def boolean(self, name: str) -> None:
        """Check that a field is True or False.

        Parameters
        ----------
        name : str
            The field.

        Raises
        ------
        InputError
            If the field is anything else.
        """
        value = self._python_value(name)
        if not isinstance(value, bool):
            self.fail(name, "True or False")
        self._store(name, value)

    def choice(self, name: str, choices: Sequence[str | int]) -> None:
        """Check that a field is one of a few values.

        Parameters
        ----------
        name : str
            The field.
        choices : sequence of str or int
            The allowed values.

        Raises
        ------
        InputError
            If the field is anything else.
        """
        value = self._python_value(name)
        is_known = isinstance(value, str | int) and not isinstance(value, bool)
        if not is_known or value not in choices:
            self.fail(name, "one of " + ", ".join(map(repr, choices)))
        self._store(name, value)

    def path(self, name: str) -> None:
        """Check that a field is a path or None.

        Parameters
        ----------
        name : str
            The field.

        Raises
        ------
        InputError
            If the field is anything else, or an empty text.
        """
        value = getattr(self._owner, name)
        if value is None:
            return
        if not isinstance(value, str | os.PathLike) or not str(value):
            self.fail(name, "a path", optional=True)

    def fail(self, name: str, rule: str, *, optional: bool = False) -> NoReturn:
        """Raise the error for a field.

        Parameters
        ----------
        name : str
            The field.
        rule : str
            The allowed values, in words.
        optional : bool
            Whether None is allowed.

        Raises
        ------
        InputError
            Always.
        """
        known_as = self._names.get(name, name)
        or_none = " or None" if optional else ""
        value = getattr(self._owner, name)
        raise InputError(
            f"{self._caller}: {known_as} must be {rule}{or_none}, got {value!r}."
        )

    def _python_value(self, name: str) -> object:
        """Return a field, with a NumPy scalar as a Python number."""
        value = getattr(self._owner, name)
        return value.item() if getattr(value, "ndim", None) == 0 else value

    def _store(self, name: str, value: object) -> None:
        object.__setattr__(self._owner, name, value)
