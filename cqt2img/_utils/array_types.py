"""Types of arrays."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Float32Array: TypeAlias = NDArray[np.float32]
Float64Array: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
Tiles: TypeAlias = NDArray[np.uint8]  # (n_tiles, height, width)
Labels: TypeAlias = NDArray[np.generic]  # of str, int, float or bool
