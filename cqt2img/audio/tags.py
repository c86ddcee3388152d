"""Tags around audio: ID3v1, ID3v2 and APE."""

import io

from cqt2img.audio.source import read_at

_HEAD_BYTES = 16
_ID3V1_BYTES = 128
_ID3V2_HEADER_BYTES = 10
_ID3V2_HAS_FOOTER = 16
_APE_HEADER_BYTES = 32


def skip_tags(file: io.FileIO) -> tuple[int, bytes]:
    """Find the end of the tags at the start of a file.

    Parameters
    ----------
    file : FileIO
        The file.

    Returns
    -------
    start : int
        Offset behind the tags.
    head : bytes
        The 16 bytes from there, padded with zeros.
    """
    start = 0
    head = read_at(file, start, _HEAD_BYTES)
    while n_bytes := tag_size(head):
        start += n_bytes
        head = read_at(file, start, _HEAD_BYTES)
    return start, head


def tag_size(head: bytes) -> int:
    """Compute the size of a tag from its first bytes.

    Parameters
    ----------
    head : bytes
        The first 16 bytes, or fewer at the end of a file.

    Returns
    -------
    int
        Size in bytes, 0 if no tag begins here.
    """
    head = head.ljust(_HEAD_BYTES, b"\0")
    if head[:3] == b"ID3":
        return _id3v2_size(head)
    if head[:3] == b"TAG":
        return _ID3V1_BYTES
    if head[:8] == b"APETAGEX":
        return _APE_HEADER_BYTES + int.from_bytes(head[12:16], "little")
    return 0


def _id3v2_size(head: bytes) -> int:
    size = _ID3V2_HEADER_BYTES
    for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True):
        size += byte << shift  # seven bits each
    if head[5] & _ID3V2_HAS_FOOTER:
        size += _ID3V2_HEADER_BYTES
    return size
