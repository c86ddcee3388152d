import os

import numpy as np

from cqt2img._utils.tables import PATH_ERRORS, make_table


def test_text_may_hold_file_names_that_are_not_utf8_and_none():
    name = os.fsdecode(b"\xff.wav")
    table = make_table([{"path": name, "label": None}, {"path": "b", "label": "x"}])
    assert table["path"].tolist() == [name, "b"]
    assert table["label"].tolist() == [None, "x"]
    assert name.encode(errors=PATH_ERRORS) == b"\xff.wav"


def test_columns_of_numbers_are_numeric():
    table = make_table([{"n": 1, "x": 0.5}, {"n": 2, "x": None}])
    assert table["n"].dtype == np.int64
    assert table["x"].dtype == np.float64


def test_columns_may_be_given_where_there_are_no_rows():
    assert make_table([], ["path", "label"]).columns.tolist() == ["path", "label"]
