"""Types of the arrays and intervals in this package."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

BoolArray: TypeAlias = NDArray[np.bool_]
IndexArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]
ProbaArray: TypeAlias = NDArray[np.float32]

Interval: TypeAlias = tuple[float, float]
"""Lower and upper limit of one interval."""

Limits: TypeAlias = tuple[FloatArray, FloatArray]
"""Lower and upper limits of many intervals."""
