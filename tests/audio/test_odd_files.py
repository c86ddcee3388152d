"""The files of benchmarks/odd_audio.py: each has its length, or its reason."""

import os
import sys
from pathlib import Path

import pytest

from cqt2img.audio.reasons import REASONS

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import odd_files
from limited_process import LimitedProcess, call_all
from odd_audio import (
    FFMPEG,
    LOSSLESS,
    RATE,
    Case,
    make_changing_files,
    make_odd_files,
)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the processes are limited as on Linux"
)


def by_path(cases):
    return {odd_files.request(case)["path"]: case for case in cases}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    made = make_odd_files(tmp_path_factory.mktemp("odd"))
    return by_path(case for case in made if not case.act)


def read_all(cases, **env):
    items = [odd_files.request(case) for case in cases.values()]
    answers = call_all("odd_files:read_ours", items, env=env)
    return {item["path"]: answer for item, answer in answers}


def find_wrong(cases, answers):
    outcomes = {
        path: odd_files.classify(case, answers[path]) for path, case in cases.items()
    }
    return [
        (outcome, os.path.basename(path), cases[path].expected, answers[path])
        for path, outcome in outcomes.items()
        if outcome not in ("right", "right error")
    ]


def test_every_file_has_its_length_or_its_reason(cases):
    expected = [case.expected for case in cases.values()]
    assert len(expected) > (220 if FFMPEG else 200)
    assert sum(isinstance(value, int) for value in expected) > 80
    assert {value for value in expected if isinstance(value, str)} <= set(REASONS)
    assert find_wrong(cases, read_all(cases)) == []


def test_a_file_may_shrink_or_vanish_while_it_is_read(tmp_path):
    cases = by_path(make_changing_files(tmp_path))
    assert len(cases) == 6
    assert find_wrong(cases, read_all(cases)) == []


def test_only_some_formats_need_ffmpeg(cases):
    answers = read_all(cases, PATH="/nowhere")
    needing = [
        path
        for path, answer in answers.items()
        if answer.get("reason") == "needs_ffmpeg"
    ]
    assert len(needing) > (15 if FFMPEG else -1)
    assert all(cases[path].needs_ffmpeg for path in needing)
    # some faults are found without it
    others = {path: case for path, case in cases.items() if path not in needing}
    assert find_wrong(others, answers) == []


def test_a_crash_a_hang_and_an_exception_are_noticed():
    process = LimitedProcess("odd_files:misbehave")
    assert process.call("crash") == {"died": "crash"}
    assert process.call("hang", seconds=0.5) == {"died": "hang"}
    assert "ZeroDivisionError" in process.call("callback")["escaped"]
    assert "MemoryError" in process.call("memory")["escaped"]
    assert process.call("nothing") == {"n": 0}
    process.close()


def test_a_function_that_is_missing_is_an_error():
    process = LimitedProcess("odd_files:gone")
    with pytest.raises(RuntimeError, match="gone"):
        process.call(None)
    process.close()


@pytest.mark.parametrize(
    ("expected", "answer", "outcome"),
    [
        (RATE, {"n": RATE + LOSSLESS}, "right"),
        (RATE, {"n": RATE + LOSSLESS + 1}, "wrong length"),
        (RATE, {"n": 0}, "nothing"),
        (RATE, {"reason": "truncated"}, "needless error"),
        ("truncated", {"reason": "truncated"}, "right error"),
        ("truncated", {"reason": "too_short"}, "wrong error"),
        ("truncated", {"escaped": "MemoryError()"}, "crash"),
    ],
)
def test_answers_are_classified(expected, answer, outcome):
    assert odd_files.classify(Case(b"x", expected), answer) == outcome
