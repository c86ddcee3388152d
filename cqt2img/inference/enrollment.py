"""What a model remembers of its recordings, and a new row of its head for a player it never trained on."""

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img.data.recordings import Recordings
from cqt2img.errors import InputError
from cqt2img.models.factory import TileNet

if TYPE_CHECKING:
    pass

_MOST = 10_000  # recordings that are remembered; of longer corpora every second, third and so on
_RIDGE = 1e-3  # per feature; of .0003 to .03 chosen on validation albums of jazz and on singers, benchmarks/unknown.py


@dataclass(frozen=True)
class ReferenceSet:
    """What the body of a network had to say of the recordings that it was fitted on.

    Parameters
    ----------
    features : ndarray of float32, shape (n_recordings, n_features)
        Mean over the tiles of each.
    codes : ndarray of int64, shape (n_recordings,)
        Who played, as a place among the classes.
    held : ndarray of bool, shape (n_recordings,)
        Whether it was held out, to choose by.
    """

    features: NDArray[np.float32]
    codes: NDArray[np.int64]
    held: NDArray[np.bool_]

    def thin(self) -> "ReferenceSet":
        """Leave out what is more than anyone needs.

        Returns
        -------
        ReferenceSet
            Of 10,000 recordings or fewer.
        """
        step = max(1, -(-len(self.codes) // _MOST))
        return ReferenceSet(
            self.features[::step], self.codes[::step], self.held[::step]
        )

    def enroll(self, place: int, features: NDArray[np.float32]) -> "ReferenceSet":
        """Remember clips of a new player, too.

        Parameters
        ----------
        place : int
            Of the new player among the classes; those behind it move up.
        features : ndarray of float32, shape (n_clips, n_features)
            Of the clips.

        Returns
        -------
        ReferenceSet
            With them.
        """
        codes = self.codes + (self.codes >= place)
        return ReferenceSet(
            np.concatenate([self.features, features.astype(np.float32)]),
            np.concatenate([codes, np.full(len(features), place, np.int64)]),
            np.concatenate([self.held, np.zeros(len(features), bool)]),
        )


@dataclass(frozen=True)
class Head:
    """The last layer of a network, which turns features into a logit for every name.

    Parameters
    ----------
    weight : ndarray of float64, shape (n_classes, n_features)
        One row per class.
    bias : ndarray of float64, shape (n_classes,)
        One number per class.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def __call__(self, features: NDArray) -> NDArray[np.float64]:
        """Give the logits, shape (n, n_classes), of features, shape (n, n_features)."""
        return features.astype(np.float64) @ self.weight.T + self.bias

    def insert(self, place: int, row: NDArray[np.float64], bias: float) -> "Head":
        """Put a row for a new class in its place.

        Parameters
        ----------
        place : int
            Of the new class among the others.
        row : ndarray of float64, shape (n_features,)
            Its weights.
        bias : float
            Its bias.

        Returns
        -------
        Head
            With one class more.
        """
        return Head(
            np.insert(self.weight, place, row, axis=0),
            np.insert(self.bias, place, bias),
        )


def _layers(network: TileNet) -> tuple[Any, ...]:
    head: Any = network.backbone.get_classifier()  # type: ignore[operator]
    return head if isinstance(head, tuple) else (head,)  # a distilled network has two


def read_head(network: TileNet) -> Head | None:
    """Give the head of a network, if it is linear.

    Parameters
    ----------
    network : TileNet
        What `build_network` gives.

    Returns
    -------
    Head or None
        The mean of both for a distilled network, whose features and answers are averaged.
    """
    layers = _layers(network)
    if not all(
        isinstance(layer, torch.nn.Linear) and layer.bias is not None
        for layer in layers
    ):
        return None
    weight = np.mean(
        [layer.weight.detach().cpu().double().numpy() for layer in layers], axis=0
    )
    return Head(
        weight,
        np.mean(
            [layer.bias.detach().cpu().double().numpy() for layer in layers], axis=0
        ),
    )


def widen_head(
    network: TileNet, place: int, row: NDArray[np.float64], bias: float
) -> None:
    """Give a network one more name to choose; the other rows of its head stay as they are.

    Parameters
    ----------
    network : TileNet
        Its head is changed.
    place : int
        Of the new class among the others.
    row : ndarray of float64, shape (n_features,)
        Its weights.
    bias : float
        Its bias.
    """
    states = [
        {k: v.detach() for k, v in layer.state_dict().items()}
        for layer in _layers(network)
    ]
    device, n_classes = states[0]["weight"].device, len(states[0]["bias"])
    with torch.random.fork_rng():  # a fresh head is drawn, and replaced
        network.backbone.reset_classifier(n_classes + 1)  # type: ignore[operator]
    new = {
        "weight": torch.from_numpy(row),
        "bias": torch.tensor(bias, dtype=torch.float64),
    }
    for layer, state in zip(_layers(network), states, strict=True):
        wide = {
            k: torch.cat([v[:place], new[k].to(v)[None], v[place:]])
            for k, v in state.items()
        }
        layer.load_state_dict(wide)
    network.to(device)


def fit_row(
    head: Head, gallery: ReferenceSet, clips: NDArray[np.float32]
) -> tuple[NDArray[np.float64], float]:
    """Fit the row of the head for a new player, and leave all others as they are.

    Parameters
    ----------
    head : Head
        Of the players that the model knows.
    gallery : ReferenceSet
        Their recordings.
    clips : ndarray of float32, shape (n_clips, n_features)
        Features of clips of the new player, one or more.

    Returns
    -------
    row : ndarray of float64, shape (n_features,)
        Weights.
    bias : float
        Their bias.

    Notes
    -----
    Logistic regression, the new player against all others as the head sees them; every player counts
    the same. Few clips in many dimensions ask for a strong ridge. Unlike a head that is fitted anew, it leaves
    the others as they are among themselves. It was chosen on validation albums of jazz, .30 right with eight
    players and two more against .27 for a row imprinted from the mean of the clips; on test albums
    both had .28 (`benchmarks/unknown.py`).

    References
    ----------
    Hang Qi, Matthew Brown and David G. Lowe, "Low-Shot Learning with Imprinted Weights", 2018.
    Spyros Gidaris and Nikos Komodakis, "Dynamic Few-Shot Visual Learning without Forgetting", 2018.
    """
    from scipy.optimize import minimize
    from scipy.special import expit, logsumexp

    mean, scale = (
        gallery.features.mean(axis=0, dtype=np.float64),
        gallery.features.std(axis=0, dtype=np.float64),
    )
    scale = np.maximum(
        scale, max(0.01 * scale.max(), 1e-12)
    )  # what hardly moves is no feature
    x = (np.concatenate([gallery.features, clips]) - mean) / scale
    others = np.concatenate(
        [logsumexp(head(gallery.features), axis=1), logsumexp(head(clips), axis=1)]
    )
    new = np.arange(len(x)) >= len(gallery.codes)
    weight = np.concatenate(
        [
            1 / np.bincount(gallery.codes)[gallery.codes],
            np.full(len(clips), 1 / len(clips)),
        ]
    )
    weight /= weight.sum()
    ridge = _RIDGE * x.shape[1]

    def loss(row: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logit = x @ row[:-1] + row[-1] - others
        error = weight * (expit(logit) - new)
        value = weight @ (np.logaddexp(0, logit) - new * logit) + ridge / 2 * (
            row[:-1] @ row[:-1]
        )
        return float(value), np.append(error @ x + ridge * row[:-1], error.sum())

    start = np.append(np.zeros(x.shape[1]), np.median(others))
    row = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return row[:-1] / scale, float(row[-1] - (row[:-1] / scale) @ mean)


def fit_new_row(
    head: Head, gallery: ReferenceSet, clips: NDArray[np.float32], albums: NDArray[Any]
) -> tuple[NDArray[np.float64], float, NDArray[np.bool_] | None]:
    """Fit the row of the head for a new player, and check it on clips that it was fitted without.

    Parameters
    ----------
    head : Head
        Of the players that the model knows.
    gallery : ReferenceSet
        Their recordings.
    clips : ndarray of float32, shape (n_clips, n_features)
        Features of clips of the new player, one or more.
    albums : ndarray, shape (n_clips,)
        What was recorded together; is left out together where there are two or more.

    Returns
    -------
    row : ndarray of float64, shape (n_features,)
        Weights.
    bias : float
        Their bias.
    right : ndarray of bool, shape (n_clips,), or None
        Which clips are named right when they are left out; None for a single clip.

    Notes
    -----
    A row knows the few clips that it was fitted to too well, and would hardly ever be chosen for others.
    So its bias is fitted once more, to the clips that were left out and to the held-out recordings of the others.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    row, bias = fit_row(head, gallery, clips)
    if len(clips) < 2:
        return row, bias, None
    parts = np.unique(albums, return_inverse=True)[1]
    parts = (
        parts if parts.any() else np.arange(len(clips))
    ) % 10  # ten fits are enough
    alone = np.empty(len(clips))
    for part in np.unique(parts):
        out = parts == part
        without, its_bias = fit_row(head, gallery, clips[~out])
        alone[out] = clips[out] @ without + its_bias
    if gallery.held.any():
        held = gallery.features[gallery.held]
        mine = alone - logsumexp(head(clips), axis=1)
        theirs = held @ row + bias - logsumexp(head(held), axis=1)

        def loss(shift: float) -> float:
            others = len(head.bias) * np.logaddexp(0, theirs + shift).mean()
            return float(np.logaddexp(0, -mine - shift).mean() + others)

        shift = minimize_scalar(loss, bounds=(-30, 30), method="bounded").x
        bias, alone = bias + shift, alone + shift
    return row, float(bias), alone > head(clips).max(axis=1)


def infer_albums(table: Recordings) -> NDArray[Any]:
    """Say what was recorded together, as far as a list of clips tells.

    Parameters
    ----------
    table : Recordings
        The clips.

    Returns
    -------
    ndarray of str, shape (n_clips,)
        The group; for a clip that is its own group the folder it lies in.
    """
    albums = []
    for recording in table:
        group, own = recording.group, recording.location
        albums.append(group if own is None or group != own else os.path.dirname(own))
    return np.array(albums)


def describe_enrollment(report: dict[str, Any]) -> tuple[int, str]:
    """Put into words how enrolling went.

    Parameters
    ----------
    report : dict
        `name`, `n_clips`, `n_albums` and `right`.

    Returns
    -------
    level : int
        Of the log: a warning where the check flatters, or there was none.
    text : str
        What to log.

    Examples
    --------
    >>> describe_enrollment({"name": "Monk", "n_clips": 5, "n_albums": 2, "right": 0.6})[1]
    "enroll: 'Monk' from 5 clips of 2 albums; 60 % were named right by a model that had not met their album"
    """
    n, albums, right = report["n_clips"], report["n_albums"], report["right"]
    text = f"enroll: {report['name']!r} from {n} clip{'s' * (n > 1)} of {albums} album{'s' * (albums > 1)}; "
    if right is None:
        return (
            logging.WARNING,
            text + "one clip cannot be checked. Give clips of two albums or more",
        )
    if albums == 1:
        return logging.WARNING, text + (
            f"{100 * right:.0f} % were named right when left out, but the model may know the album by its "
            "sound: expect less of others. Give clips of two albums or more"
        )
    return (
        logging.INFO,
        text
        + f"{100 * right:.0f} % were named right by a model that had not met their album",
    )


def check_new_name(name: Any, classes: NDArray[Any]) -> None:
    """Refuse a name that the model has, or that is of another kind than those it has.

    Parameters
    ----------
    name : str, int, float or bool
        Of the new player.
    classes : ndarray, shape (n_classes,)
        The names.

    Raises
    ------
    InputError
        If it cannot be added.
    """
    known, kind = classes.tolist(), type(classes[0].item())
    if type(name) is not kind or name == "":
        raise InputError(
            f"enroll: name must be {'a name' if kind is str else 'of type ' + kind.__name__} like {known[0]!r}, "
            f"got {name!r}. Choose another."
        )
    if name in known:
        raise InputError(
            f"enroll: name must be new, got {name!r}, which the model knows. Choose another."
        )
