"""SHA-256 digests of files and of data in memory."""

import hashlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


def hash_file(path: str | os.PathLike[str]) -> str:
    """Compute the SHA-256 digest of the contents of a file.

    Parameters
    ----------
    path : str or PathLike
        The file; it is read in small blocks.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_bytes(parts: Iterable["Buffer"]) -> str:
    """Compute the SHA-256 digest of parts joined in order.

    Parameters
    ----------
    parts : iterable of bytes-like
        Bytes, memory views or C-contiguous arrays. Boundaries between parts do not
        affect the digest.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> hash_bytes([b"A", b"4"]) == hash_bytes([b"A4"])
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
