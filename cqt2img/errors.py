"""Errors that cqt2img raises on purpose."""


class Cqt2imgError(Exception):
    """Base class of all errors that cqt2img raises on purpose."""


class InputError(Cqt2imgError, ValueError):
    """Raised when an argument, a table or a file is invalid."""


class AudioError(Cqt2imgError, OSError):
    """Raised when a recording cannot be turned into a faithful image.

    Parameters
    ----------
    reason : str
        Short token for tables, a key of `cqt2img.audio.reasons.REASONS`.
    message : str
        One sentence that names the file, the problem and what to do next.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


class TrainingError(Cqt2imgError, RuntimeError):
    """Raised when the loss or the outputs of a network are no longer finite."""
