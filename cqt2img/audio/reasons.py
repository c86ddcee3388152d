"""Reasons why a recording cannot be used, and the errors that report them."""

from cqt2img.errors import AudioError

REASONS: dict[str, str] = {
    "vanished": "The file does not exist.",
    "not_a_file": "The path is a folder, a pipe or a device.",
    "not_readable": "The operating system cannot read the file.",
    "empty_file": "The file has 0 bytes.",
    "needs_ffmpeg": "The format requires ffmpeg, which is not installed.",
    "unsupported_or_corrupt": "The file is damaged, or its format is unknown.",
    "truncated": "The file ends early or holds less audio than its header promises.",
    "bad_sample_rate": "The sample rate is outside 4000 to 768000 Hz.",
    "bad_channels": "The file has more than 64 channels.",
    "non_finite": "The samples include NaN or infinity.",
    "too_short": "The recording is shorter than 0.1 s.",
    "too_long": "The recording is longer than max_seconds.",
    "silent": "The mono mix never exceeds -80 dBFS.",
    "timeout": "Reading and rendering exceeded the time limit.",
    "worker_died": "The process that read the file was ended by the system.",
}
_ADVICE = {
    "vanished": "Check the spelling, and that the disk is connected.",
    "not_a_file": "Name one audio file, or copy it to a file.",
    "not_readable": "Check its permissions and its disk.",
    "empty_file": "Copy it again from its source.",
    "needs_ffmpeg": "Install ffmpeg, or convert the file to FLAC.",
    "unsupported_or_corrupt": "Check that it plays, or convert it to FLAC.",
    "truncated": "Copy it again from its source.",
    "bad_sample_rate": "Resample it, or correct its header.",
    "bad_channels": "Mix it down.",
    "non_finite": "Export it again with 16 or 24 bits.",
    "too_short": "Leave it out, or use a longer take.",
    "too_long": "Cut it, or raise max_seconds.",
    "silent": "Check the recording, or export one of its channels.",
    "timeout": "Convert it to FLAC.",
}


def file_error(reason: str, name: str, problem: str) -> AudioError:
    """Make the error for a file that cannot be used.

    Parameters
    ----------
    reason : str
        A key of `REASONS`.
    name : str
        Path of the file.
    problem : str
        Verb phrase that completes a sentence beginning with the path.

    Returns
    -------
    AudioError
        Its message names the file, the problem and what to do next.
    """
    return AudioError(reason, f"{name!r} {problem}. {_ADVICE[reason]}")


def truncated_error(name: str, problem: str) -> AudioError:
    """Make the error for a file that ends too early.

    Parameters
    ----------
    name, problem
        As for `file_error`.

    Returns
    -------
    AudioError
        With the reason "truncated".
    """
    return file_error("truncated", name, problem)


def corrupt_error(name: str, problem: str) -> AudioError:
    """Make the error for a file that cannot be decoded.

    Parameters
    ----------
    name, problem
        As for `file_error`.

    Returns
    -------
    AudioError
        With the reason "unsupported_or_corrupt".
    """
    return file_error("unsupported_or_corrupt", name, problem)


def unreadable_error(name: str, cause: OSError) -> AudioError:
    """Make the error for a file that the operating system cannot read.

    Parameters
    ----------
    name : str
        Path of the file.
    cause : OSError
        Error of the operating system.

    Returns
    -------
    AudioError
        With the reason "not_readable".
    """
    return file_error("not_readable", name, f"cannot be read ({cause.strerror})")
