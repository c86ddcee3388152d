"""Tables with Python strings."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


PATH_ERRORS = "surrogateescape"  # file names need not be UTF-8


def make_table(
    rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None
) -> "pd.DataFrame":
    """Make a DataFrame whose text columns hold Python strings.

    Arrow strings would neither hold names that are not UTF-8 nor None.

    Parameters
    ----------
    rows : sequence of mapping
        The rows.
    columns : sequence of str, optional
        Names of the columns; needed if there may be no rows.

    Returns
    -------
    DataFrame
        Columns without text have the numeric type of their values.
    """
    import pandas as pd

    table = pd.DataFrame(list(rows), columns=columns, dtype=object)
    for name in table.columns:
        has_text = any(isinstance(value, str) for value in table[name])
        if not has_text:
            table[name] = table[name].infer_objects()
    return table


def is_missing(value: object) -> bool:
    """Check whether a table entry is empty.

    Parameters
    ----------
    value : object
        Any value, such as an entry of a DataFrame.

    Returns
    -------
    bool
        True for None, NaN, NaT, `pandas.NA` and the empty string.
    """
    import pandas as pd

    if isinstance(value, str):
        return value == ""
    return pd.api.types.is_scalar(value) and bool(pd.isna(value))
