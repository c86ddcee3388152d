"""Check that an audio file holds what its container promises, before it is decoded."""

import io
import os

from cqt2img.audio.containers import (
    AU_MAGICS,
    CHUNKED_MAGICS,
    MP4_MAGIC,
    check_au,
    check_chunks,
)
from cqt2img.audio.flac import FLAC_MAGIC, check_flac
from cqt2img.audio.mp3 import check_mp3, find_first_frame
from cqt2img.audio.ogg import OGG_MAGIC, check_ogg
from cqt2img.audio.source import Source, make_source
from cqt2img.audio.tags import skip_tags


def check_file(file: io.FileIO, name: str) -> Source:
    """Check that a file is complete, in whatever format its content is.

    Parameters
    ----------
    file : FileIO
        The file.
    name : str
        Path of the file, for errors.

    Returns
    -------
    Source
        The file as libsndfile decodes it completely. Unknown formats are passed on as
        they are.

    Raises
    ------
    AudioError
        If the file is truncated or damaged.
    """
    size = os.fstat(file.fileno()).st_size
    start, head = skip_tags(file)
    span = range(start, size)
    magic = MP4_MAGIC if head[4:8] == MP4_MAGIC else head[:4]
    if magic == OGG_MAGIC:
        return check_ogg(file, span, name)
    if magic == FLAC_MAGIC:
        return check_flac(file, span, name)
    if magic in AU_MAGICS:
        return check_au(file, span, name)
    if magic in CHUNKED_MAGICS:
        return check_chunks(file, span, magic, name)
    first_frame = find_first_frame(file, start)
    if first_frame is None:
        return make_source(file, range(size))
    return check_mp3(file, range(first_frame, size), name)
