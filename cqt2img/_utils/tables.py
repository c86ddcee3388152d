"""Data frames with Python strings."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


PATH_ERRORS = "surrogateescape"  # how text holds file names that are not UTF-8


def make_table(
    rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None
) -> "pd.DataFrame":
    """Make a table with Python strings.

    The strings of Arrow, which pandas uses by default, can hold neither file names
    that are not UTF-8 nor None.

    Parameters
    ----------
    rows : sequence of mapping
        One mapping from column to value for each row.
    columns : sequence of str, optional
        Columns of the result. By default those of `rows`.

    Returns
    -------
    DataFrame
        The rows; columns of numbers have a numeric type.
    """
    import pandas as pd

    table = pd.DataFrame(rows, columns=columns, dtype=object)
    for name in table.columns:
        has_text = any(isinstance(value, str) for value in table[name])
        if not has_text:
            table[name] = table[name].infer_objects()
    return table
