"""Damaged files of each format: an `AudioError`, or the undamaged length."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import fuzz_audio

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the processes are limited as on Linux"
)
N = 1000
SNDFILE_FORMATS = sorted(set(fuzz_audio.FORMATS) - set(fuzz_audio.FFMPEG_FORMATS))


def other_outcomes(odd):
    return [entry for entry in odd if entry["outcome"] != "wrong length"]


@pytest.mark.slow
@pytest.mark.parametrize("form", SNDFILE_FORMATS)
def test_a_thousand_damaged_files_neither_crash_nor_hang(form):
    n_processes = min(2, os.cpu_count() or 1)
    counts, odd = fuzz_audio.fuzz(form, N, n_processes=n_processes)
    assert counts.total() == N
    assert counts["error"] > N / 10
    assert counts["right"] > 0
    assert other_outcomes(odd) == []
    assert counts["wrong length"] <= N / 100


def test_a_few_damaged_files_of_each_format_neither_crash_nor_hang():
    for form in SNDFILE_FORMATS:
        counts, odd = fuzz_audio.fuzz(form, 30, first=10**6, n_processes=1)
        assert other_outcomes(odd) == []
        assert counts["right"] + counts["error"] >= 29


def test_mutations_depend_on_the_seed_and_change_the_file():
    data = fuzz_audio.FORMATS["wav"]()
    mutations = [fuzz_audio.mutate(data, np.random.default_rng(n)) for n in range(200)]
    repeated = [fuzz_audio.mutate(data, np.random.default_rng(n)) for n in range(200)]
    assert mutations == repeated
    # a replaced value may be the one that was there
    assert sum(mutation != data for mutation in mutations) > 180
    assert min(map(len, mutations)) < len(data) / 2
    assert max(map(len, mutations)) > len(data)
    assert fuzz_audio.mutate(b"", np.random.default_rng(0)) is not None
