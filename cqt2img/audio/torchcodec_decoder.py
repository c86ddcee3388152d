"""Decoding by torchcodec in a process of its own.

    python -m cqt2img.audio.torchcodec_decoder FILE DEMUXER

Writes the audio to standard output in the AU format, as ffmpeg does. Where ffmpeg
writes the encoding, the header has the number of frames, 0 if it is unknown.
"""

import struct
import sys
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from torchcodec.decoders import AudioDecoder

NO_TORCHCODEC = 3  # exit status
AU_HEADER = struct.Struct(">4s5I")
_UNKNOWN_SIZE = 0xFFFFFFFF
_STEP_SECONDS = 10


def main() -> None:
    """Decode the file that the command line names."""
    try:
        from torchcodec.decoders import AudioDecoder
    except (ImportError, OSError, RuntimeError):  # its own ffmpeg libraries are missing
        sys.exit(NO_TORCHCODEC)
    path, demuxer = sys.argv[1:]
    with open(path, "rb") as file:
        write_au(AudioDecoder(file), demuxer, sys.stdout.buffer)


def write_au(decoder: "AudioDecoder", demuxer: str, output: BinaryIO) -> None:
    """Write decoded audio in the AU format.

    Parameters
    ----------
    decoder : AudioDecoder
        Decoder of torchcodec.
    demuxer : str
        Name of the demuxer of ffmpeg. The duration of raw AAC is only an estimate, and
        is not written.
    output : binary file
        Where to write.
    """
    metadata = decoder.metadata
    rate = metadata.sample_rate
    n_promised = 0
    is_raw_aac = metadata.codec == "aac" and demuxer == "aac"
    if metadata.duration_seconds and not is_raw_aac:
        n_promised = round(rate * metadata.duration_seconds)
    header = (b".snd", AU_HEADER.size, _UNKNOWN_SIZE, n_promised)
    output.write(AU_HEADER.pack(*header, rate, metadata.num_channels))
    start = 0
    n_samples = step_samples = rate * _STEP_SECONDS
    while n_samples == step_samples:
        stop = start + _STEP_SECONDS
        try:
            samples = decoder.get_samples_played_in_range(float(start), float(stop))
        except RuntimeError as err:
            is_end = "No audio frames were decoded" in str(err)
            if start == 0 or not is_end:
                raise
            break
        n_samples = samples.data.shape[1]
        start = stop
        frames = samples.data.T.contiguous().numpy()
        output.write(frames.astype(">f4").tobytes())


if __name__ == "__main__":
    main()
