import re
from pathlib import Path

import pytest

import cqt2img
from cqt2img.audio.reasons import REASONS, corrupt_error, file_error, truncated_error

SOURCES = sorted(Path(cqt2img.__file__).parent.rglob("*.py"))
# Raised where the reason is a variable, or by a function that has it in its name.
INDIRECT = {"truncated", "unsupported_or_corrupt", "not_readable", "worker_died"}


def test_reasons_are_tokens_with_a_sentence_each():
    assert all(re.fullmatch("[a-z_]+", reason) for reason in REASONS)
    assert all(text.endswith(".") for text in REASONS.values())


def test_all_reasons_are_used_and_no_others():
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    used = set(re.findall(r'file_error\(\s*"([a-z_]+)"', text))
    assert len(used) > 5
    assert used | INDIRECT == set(REASONS)


@pytest.mark.parametrize("reason", sorted(set(REASONS) - {"worker_died"}))
def test_a_message_has_the_file_the_problem_and_what_to_do_next(reason):
    error = file_error(reason, "a\nb.wav", "is odd")
    assert error.reason == reason
    assert re.fullmatch(r"'a\\nb\.wav' is odd\. [A-Z].*\.", error.message)


def test_common_reasons_have_functions_of_their_own():
    assert truncated_error("x", "ends").reason == "truncated"
    assert corrupt_error("x", "is odd").reason == "unsupported_or_corrupt"
