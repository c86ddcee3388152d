"""The odd files of benchmarks/odd_files.py, read in child processes: every one whole, or with its reason."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from cqt2img.audio.decode import REASONS

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import odd_files

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the child processes are limited as on Linux"
)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    made = odd_files.make_odd_files(tmp_path_factory.mktemp("odd"))
    return {odd_files.request(case)["path"]: case for case in made if not case.act}


def read_all(cases, **env):
    items = [odd_files.request(case) for case in cases.values()]
    answers = odd_files.ask_all("odd_files:read_ours", items, env=env)
    return {item["path"]: answer for item, answer in answers}


def wrong(cases, answers):
    judged = {
        path: odd_files.judge(case, answers[path]) for path, case in cases.items()
    }
    return [
        (judged[p], os.path.basename(p), cases[p].expected, answers[p])
        for p in cases
        if "right" not in judged[p][:5]
    ]


def test_every_odd_file_is_whole_or_has_its_reason(cases, tmp_path):
    changing = {
        odd_files.request(case)["path"]: case
        for case in odd_files.make_changing_files(tmp_path)
    }
    expected = [case.expected for case in cases.values()]
    assert len(cases) > 220
    assert {e for e in expected if isinstance(e, str)} <= set(REASONS)
    assert sum(isinstance(e, int) for e in expected) > 90
    assert wrong(cases, read_all(cases)) == []
    assert wrong(changing, read_all(changing)) == []


def test_only_some_formats_need_ffmpeg(cases):
    with_ffmpeg, without = read_all(cases), read_all(cases, PATH="/nowhere")
    for path, case in cases.items():
        if with_ffmpeg[path] != without[path]:
            assert case.needs_ffmpeg, path
            assert without[path]["reason"] == "needs_ffmpeg"
    if shutil.which("ffmpeg"):
        assert (
            sum(answer.get("reason") == "needs_ffmpeg" for answer in without.values())
            > 15
        )


def test_the_harness_sees_a_crash_a_hang_and_what_escapes():
    child = odd_files.Child("odd_files:misbehave")
    assert child.ask("crash") == {"died": "crash"}
    assert child.ask("hang", seconds=0.5) == {"died": "hang"}
    assert "ZeroDivisionError" in child.ask("callback")["escaped"]
    assert "MemoryError" in child.ask("memory")["escaped"]
    assert child.ask("nothing") == {"n": 0}
    child.close()
    assert (
        odd_files.judge(odd_files.Case(b"x", 22050), {"n": 22050 + odd_files.LOSSLESS})
        == "right"
    )
    assert odd_files.judge(odd_files.Case(b"x", 22050), {"n": 22053}) == "wrong length"
    assert odd_files.judge(odd_files.Case(b"x", 22050), {"n": 0}) == "nothing"
    assert (
        odd_files.judge(odd_files.Case(b"x", 22050), {"reason": "truncated"})
        == "wrongly refused"
    )
    assert (
        odd_files.judge(odd_files.Case(b"x", "truncated"), {"reason": "too_short"})
        == "wrong error"
    )
    assert (
        odd_files.judge(odd_files.Case(b"x", "truncated"), {"escaped": "MemoryError()"})
        == "crash"
    )
