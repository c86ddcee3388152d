"""Check of FLAC files before they are decoded."""

import io

from cqt2img.audio.reasons import corrupt_error
from cqt2img.audio.source import Source, make_source, read_at

FLAC_MAGIC = b"fLaC"
_LAST_BLOCK = 128  # flag of a metadata block
_INFO_BYTES = 26  # up to the end of the number of frames
_NUMBERS_START = 18  # rate: 20 bits, channels: 3, bits: 5, frames: 36
_FRAMES_MASK = (1 << 36) - 1
_RATE_SHIFT = 44
_ID3V1_BYTES = 128
_FRAME_RATES = (  # in Hz, by the rate code of a frame; 0 and 12 to 15 are not rates
    0,
    88200,
    176400,
    192000,
    8000,
    16000,
    22050,
    24000,
    32000,
    44100,
    48000,
    96000,
)


def check_flac(file: io.FileIO, span: range, name: str) -> Source:
    """Check that the header of a FLAC agrees with its first frame.

    Parameters
    ----------
    file : FileIO
        The file.
    span : range
        Offsets from the magic number to the end of the file.
    name : str
        Path of the file, for errors.

    Returns
    -------
    Source
        The file with the number of frames in its header set to unknown, so that
        libsndfile decodes all of them; without an ID3v1 tag at its end.

    Raises
    ------
    AudioError
        If the sample rates differ.
    """
    head = read_at(file, span.start, _INFO_BYTES)
    numbers = int.from_bytes(head[_NUMBERS_START:], "big")
    rate = numbers >> _RATE_SHIFT
    frame_rate = _read_frame_rate(file, _find_first_frame(file, span))
    if frame_rate not in (None, rate):
        raise corrupt_error(
            name, f"claims {rate} Hz, but its audio has {frame_rate} Hz"
        )
    n_promised = numbers & _FRAMES_MASK
    unknown_length = (numbers - n_promised).to_bytes(8, "big")
    tag_start = max(0, span.stop - _ID3V1_BYTES)
    has_tag = read_at(file, tag_start, 3) == b"TAG"
    stop = span.stop - _ID3V1_BYTES if has_tag else span.stop
    pieces = (
        head[:_NUMBERS_START],
        unknown_length,
        range(span.start + _INFO_BYTES, stop),
    )
    return make_source(file, *pieces, n_promised=n_promised)


def _find_first_frame(file: io.FileIO, span: range) -> int:
    """Return the offset behind the metadata blocks."""
    position = span.start + len(FLAC_MAGIC)
    is_last = False
    while not is_last and position < span.stop:
        header = read_at(file, position, 4)
        is_last = bool(header[0] & _LAST_BLOCK)
        position += 4 + int.from_bytes(header[1:], "big")
    return position


def _read_frame_rate(file: io.FileIO, position: int) -> int | None:
    """Return the sample rate of a frame in Hz, or None if it does not have one."""
    frame = read_at(file, position, 3)
    is_frame = frame[0] == 0xFF and frame[1] & 0xFC == 0xF8
    code = frame[2] & 0x0F
    if not is_frame or not 0 < code < len(_FRAME_RATES):
        return None
    return _FRAME_RATES[code]
