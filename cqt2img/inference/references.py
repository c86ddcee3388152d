"""Embeddings of the training recordings, for open-set detection and enrollment."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.array_types import BoolArray, Float32Array, IntArray

_MAX_RECORDINGS = 10_000  # 10,000 x 512 float32 are 20 MB in a saved model


@dataclass(frozen=True)
class ReferenceSet:
    """Embeddings of the recordings that a model was fitted on.

    Parameters
    ----------
    features : ndarray of float32, shape (n_recordings, n_features)
        Embedding of each recording: the mean over its tiles.
    class_indices : ndarray of int64, shape (n_recordings,)
        Class of each recording.
    is_validation : ndarray of bool, shape (n_recordings,)
        Whether the recording was kept from training.
    """

    features: Float32Array
    class_indices: IntArray
    is_validation: BoolArray

    @property
    def training_features(self) -> Float32Array:
        """Embeddings of the training recordings, shape (n_training, n_features)."""
        return self.features[~self.is_validation]

    @property
    def validation_features(self) -> Float32Array:
        """Embeddings of the validation recordings, shape (n_validation, n_features)."""
        return self.features[self.is_validation]

    def select(self, index: NDArray | slice) -> "ReferenceSet":
        """Return the references at some positions.

        Parameters
        ----------
        index : ndarray of int64 or bool, or slice
            Positions, or a mask of shape (n_recordings,).

        Returns
        -------
        ReferenceSet
            The selected references.
        """
        return ReferenceSet(
            self.features[index],
            self.class_indices[index],
            self.is_validation[index],
        )

    def limit_size(self) -> "ReferenceSet":
        """Return every second, third, ... reference, so that 10,000 or fewer remain.

        Returns
        -------
        ReferenceSet
            The same references where there are 10,000 or fewer.
        """
        step = max(1, -(-len(self.class_indices) // _MAX_RECORDINGS))
        return self.select(slice(None, None, step))

    def insert_class(self, class_index: int, features: Float32Array) -> "ReferenceSet":
        """Add the recordings of a new class.

        Parameters
        ----------
        class_index : int
            Index of the new class; the indices from there on move up by one.
        features : ndarray of float32, shape (n_clips, n_features)
            Embeddings of its recordings, which count as training recordings.

        Returns
        -------
        ReferenceSet
            All recordings, the new ones last.
        """
        moved = self.class_indices + (self.class_indices >= class_index)
        added = np.full(len(features), class_index, np.int64)
        return ReferenceSet(
            np.concatenate([self.features, features.astype(np.float32)]),
            np.concatenate([moved, added]),
            np.concatenate([self.is_validation, np.zeros(len(features), bool)]),
        )
