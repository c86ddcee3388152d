import io

import numpy as np
import pytest

from cqt2img.audio.torchcodec_decoder import AU_HEADER, write_au
from tests.audio.fake_decoder import N_CHANNELS, RATE, FakeDecoder


def decode(*arguments, demuxer="mov"):
    """Return the fields of the AU header, and the samples."""
    output = io.BytesIO()
    write_au(FakeDecoder(*arguments), demuxer, output)
    data = output.getvalue()
    samples = np.frombuffer(data, ">f4", offset=AU_HEADER.size)
    return AU_HEADER.unpack_from(data), samples.reshape(-1, N_CHANNELS)


@pytest.mark.parametrize("seconds", [0.5, 10, 20, 23.5])
def test_all_samples_are_written_in_order(seconds):
    header, samples = decode(seconds, seconds)
    n_frames = round(seconds * RATE)
    assert header == (b".snd", AU_HEADER.size, 2**32 - 1, n_frames, RATE, N_CHANNELS)
    expected = np.sin(2 * np.pi * 440 * np.arange(n_frames) / RATE)
    assert samples.shape == (n_frames, N_CHANNELS)
    np.testing.assert_allclose(samples, np.tile(expected, (2, 1)).T, atol=1e-6)


def test_an_unknown_or_estimated_length_is_not_promised():
    assert decode(1, None)[0][3] == 0
    assert decode(1, 1, demuxer="aac")[0][3] == 0


@pytest.mark.parametrize("failing_seconds", [0, 10])
def test_a_fault_is_raised(failing_seconds):
    with pytest.raises(RuntimeError, match="Could not decode"):
        decode(30, 30, failing_seconds)


def test_a_file_without_audio_is_a_fault():
    with pytest.raises(RuntimeError, match="No audio frames"):
        decode(0, 30)
