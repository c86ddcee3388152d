"""The linear head of a network: read it, apply it, add a class to it."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img._utils.array_types import Float64Array
from cqt2img.models.architecture import TimmInterface
from cqt2img.models.factory import TileNet

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler


@dataclass(frozen=True)
class LinearHead:
    """The last layer of a network, which maps embeddings to logits.

    Parameters
    ----------
    weight : ndarray of float64, shape (n_classes, n_features)
        One row per class.
    bias : ndarray of float64, shape (n_classes,)
        One number per class.
    """

    weight: Float64Array
    bias: Float64Array

    @classmethod
    def from_regression(
        cls, model: "LogisticRegression", scaler: "StandardScaler"
    ) -> "LinearHead":
        """Convert a logistic regression on standardised features.

        Parameters
        ----------
        model : LogisticRegression
            Fitted to what `scaler` returns, for two classes or more.
        scaler : StandardScaler
            Fitted to the embeddings.

        Returns
        -------
        LinearHead
            Has the same softmax on the embeddings themselves.
        """
        weight = model.coef_
        bias = model.intercept_
        if len(weight) == 1:  # scikit-learn has a single row for two classes
            weight = np.concatenate([-weight, weight]) / 2
            bias = np.concatenate([-bias, bias]) / 2
        scaled = weight / scaler.scale_
        return cls(scaled, bias - scaled @ scaler.mean_)

    def __call__(self, features: NDArray) -> Float64Array:
        """Compute the logits, shape (n, n_classes), of features (n, n_features)."""
        return features.astype(np.float64) @ self.weight.T + self.bias

    def insert_class(
        self, class_index: int, row: Float64Array, bias: float
    ) -> "LinearHead":
        """Add a class.

        Parameters
        ----------
        class_index : int
            Index of the new class; the classes from there on move up by one.
        row : ndarray of float64, shape (n_features,)
            Weights of the new class.
        bias : float
            Bias of the new class.

        Returns
        -------
        LinearHead
            A head with `n_classes + 1` classes.
        """
        return LinearHead(
            np.insert(self.weight, class_index, row, axis=0),
            np.insert(self.bias, class_index, bias),
        )


def read_head(network: TileNet) -> LinearHead | None:
    """Return the head of a network as arrays.

    Parameters
    ----------
    network : TileNet
        The network.

    Returns
    -------
    LinearHead or None
        None if the head is not linear or has no bias. A distilled network averages
        the embeddings and the logits of two heads; the mean of both heads then
        approximates the logits.
    """
    weights = []
    biases = []
    for layer in network.heads:
        if not isinstance(layer, torch.nn.Linear) or layer.bias is None:
            return None
        weights.append(layer.weight.detach().cpu().double().numpy())
        biases.append(layer.bias.detach().cpu().double().numpy())
    return LinearHead(np.mean(weights, axis=0), np.mean(biases, axis=0))


def widen_head(
    network: TileNet, class_index: int, row: Float64Array, bias: float
) -> TileNet:
    """Return a copy of a network whose linear head has one more class.

    Parameters
    ----------
    network : TileNet
        The network; it is not changed.
    class_index : int
        Index of the new class; the classes from there on move up by one.
    row : ndarray of float64, shape (n_features,)
        Weights of the new class.
    bias : float
        Bias of the new class.

    Returns
    -------
    TileNet
        On the same device; the logits of the other classes are the same.
    """
    wide = copy.deepcopy(network)
    states = [layer.state_dict() for layer in wide.heads]
    n_classes = len(states[0]["bias"])
    with torch.random.fork_rng():  # the initial weights are drawn, then replaced
        cast(TimmInterface, wide.backbone).reset_classifier(n_classes + 1)
    new = {
        "weight": torch.from_numpy(row),
        "bias": torch.tensor(bias, dtype=torch.float64),
    }
    for layer, state in zip(wide.heads, states, strict=True):
        for name, old in state.items():
            added = new[name].to(old)[None]
            parts = [old[:class_index], added, old[class_index:]]
            state[name] = torch.cat(parts)
        layer.load_state_dict(state)
    return wide.to(network.table.device)
