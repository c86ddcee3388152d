"""Error messages that start with the public method the user called."""

from collections.abc import Iterator
from contextlib import contextmanager

from cqt2img.errors import InputError


@contextmanager
def start_errors_with(caller: str | None, argument: str = "") -> Iterator[None]:
    """Start the messages of input errors with the method or argument they concern.

    Internal functions raise `InputError` without naming a method. Public methods run
    them within this context, so that the message starts with what the user called.

    Parameters
    ----------
    caller : str or None
        The public method or command, such as "fit".
    argument : str, optional
        The argument that messages start with if there is no caller.

    Notes
    -----
    A message that starts with the caller or the argument already is not changed.

    Examples
    --------
    >>> with start_errors_with("predict"):
    ...     raise InputError("no such folder: 'clipz'. Check the spelling.")
    Traceback (most recent call last):
    ...
    cqt2img.errors.InputError: predict: no such folder: 'clipz'. Check the spelling.
    """
    try:
        yield
    except InputError as error:
        message = str(error)
        prefix = argument if caller is None else f"{caller}:"
        if not message.startswith(prefix):
            error.args = (f"{prefix.removesuffix(':')}: {message}",)
        raise
