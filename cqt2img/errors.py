"""What can go wrong, in three words: the input, the audio, or a missing extra."""


class Cqt2imgError(Exception):
    """Root of every error that cqt2img raises on purpose."""


class InputError(Cqt2imgError, ValueError):
    """An argument, a table or a file that the caller gave cannot be used as it is."""


class AudioError(Cqt2imgError, OSError):
    """A recording that cannot be turned into an honest picture.

    Parameters
    ----------
    reason : str
        One of the short tokens in `cqt2img.audio.decode.REASONS`, for tables.
    message : str
        One sentence that names the file and the way out, for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


class MissingExtraError(Cqt2imgError, ImportError):
    """A program or package that is not part of the plain installation is needed."""
