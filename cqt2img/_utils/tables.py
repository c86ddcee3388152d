"""Data frames whose text is Python's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


_BYTES = "surrogateescape"  # names of files need not be UTF-8


def make_table(
    rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None
) -> "pd.DataFrame":
    """Make a table whose text is Python's: Arrow's holds no name that is not UTF-8, and no None.

    Parameters
    ----------
    rows : sequence of dict
        One row each.
    columns : sequence of str, optional
        Their names, where there may be no row.

    Returns
    -------
    DataFrame
        The rows; columns of numbers have a numeric type.
    """
    import pandas as pd

    table = pd.DataFrame(rows, columns=columns, dtype=object)
    for name in table.columns:
        if not any(isinstance(value, str) for value in table[name]):
            table[name] = table[name].infer_objects()
    return table
