"""A thousand damaged files of each format: refused with a reason, or as long as the undamaged one."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import fuzz_audio

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the child processes are limited as on Linux"
)
N = 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", sorted(set(fuzz_audio.FORMATS) - set(fuzz_audio.OF_FFMPEG))
)
def test_damaged_files_never_crash_nor_hang_and_rarely_lie(form):
    counts, odd = fuzz_audio.fuzz(form, N, n_children=min(2, os.cpu_count() or 1))
    assert counts.total() == N
    assert counts["refused"] > N / 10
    assert counts["right"] > 0
    assert [entry for entry in odd if entry["word"] != "wrong length"] == []
    assert counts["wrong length"] <= N / 100


def test_mutations_are_seeded_and_change_the_file():
    data = fuzz_audio.FORMATS["wav"]()
    made = [fuzz_audio.mutate(data, np.random.default_rng(seed)) for seed in range(200)]
    assert made == [
        fuzz_audio.mutate(data, np.random.default_rng(seed)) for seed in range(200)
    ]
    assert sum(one != data for one in made) > 180  # an extreme may be what was there
    assert min(map(len, made)) < len(data) / 2
    assert max(map(len, made)) > len(data)
    assert fuzz_audio.mutate(b"", np.random.default_rng(0)) is not None


def test_a_few_damaged_files_of_each_format():
    for form in sorted(set(fuzz_audio.FORMATS) - set(fuzz_audio.OF_FFMPEG)):
        counts, odd = fuzz_audio.fuzz(form, 30, first=10**6, n_children=1)
        assert [entry for entry in odd if entry["word"] != "wrong length"] == []
        assert counts["right"] + counts["refused"] >= 29
