"""`Classifier`: fit on recordings of players, then say who plays."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from cqt2img._utils.parallel import run_parallel
from cqt2img._utils.progress import Progress, progress_bar
from cqt2img.data.labels import check_labelled, encode
from cqt2img.data.recordings import list_recordings
from cqt2img.data.tile_folder import resolve_spec
from cqt2img.errors import InputError
from cqt2img.evaluation.evaluation import Evaluation, evaluate_proba
from cqt2img.inference.calibration import to_proba
from cqt2img.inference.enrollment import Head, ReferenceSet, read_head
from cqt2img.inference.open_set import (
    OpenSetDetector,
    check_open_set_ready,
    unknown_label,
)
from cqt2img.inference.predict import (
    RecordingOutput,
    embed,
    embed_tiles,
    predict_recordings,
)
from cqt2img.inference.tables import recording_table, tile_table
from cqt2img.models.device import resolve_device
from cqt2img.models.factory import TileNet
from cqt2img.tiles.extract import raise_on_failures, try_extract
from cqt2img.tiles.spec import TileSpec

if TYPE_CHECKING:
    import pandas as pd

import logging
import os
from dataclasses import asdict
from pathlib import Path

import torch

from cqt2img._utils.files import check_folder
from cqt2img.data.dataset import (
    TrainingData,
    list_train_validation,
    load_train_validation,
    split_training_data,
)
from cqt2img.inference.calibration import fit_temperature
from cqt2img.inference.enrollment import (
    check_new_name,
    describe_enrollment,
    fit_new_row,
    infer_albums,
    widen_head,
)
from cqt2img.inference.model_io import load_model, save_model
from cqt2img.inference.open_set import select_score
from cqt2img.models.device import retain_freed_memory
from cqt2img.models.factory import build_network
from cqt2img.models.notes import NOTES, reads
from cqt2img.models.weights import training_provenance
from cqt2img.training.callbacks import default_callbacks
from cqt2img.training.config import TrainingConfig, check_fractions
from cqt2img.training.trainer import TrainingResult, train, train_linear_probe

log = logging.getLogger(__name__)
_RECIPE = (
    "finetune",
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "augment",
    "precision",
    "layer_decay",
    "head_first",
    "mixup",
    "ema",
    "patience",
    "accumulate",
    "balance",
    "workers",
)


class Listener(ClassifierMixin, BaseEstimator):
    """What `Classifier` does once it is fitted: it listens to recordings and answers, and changes nothing of itself."""

    # what its constructor stores, and what `fit` makes
    batch_size: int
    device: str | None
    n_jobs: int
    on_error: str
    verbose: bool
    classes_: NDArray[Any]
    spec_: TileSpec
    network_: TileNet
    temperature_: float
    groups_: NDArray[Any]
    fingerprints_: list[str]
    references_: ReferenceSet | None
    open_set_: OpenSetDetector

    def identify(self, X: Any, top_k: int = 3, unknown: bool = False) -> "pd.DataFrame":
        """Name the player of every recording, with one row for each, whatever its state.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            The recordings, as for `fit`.
        top_k : int
            How many names to list, 1 or more.
        unknown : bool
            Whether to tell, too, if the player may be none of those the model knows.

        Returns
        -------
        DataFrame
            `path`, `label`, `probability`, `label_2`, `probability_2` and so on, `status` ("ok"
            or "error"), `reason`, `message`. No label where the status is "error". With `unknown`,
            before the status, `known` and `is_unknown`, see Notes.

        Raises
        ------
        InputError
            If there is no recording, `top_k` is below 1, or the model cannot tell the unknown.

        Notes
        -----
        `label` and `probability` always say who it is if it is one of the players that the model knows.
        `known`, 0 to 1, is the part of recordings by these players, heard in `fit` but not trained on, that
        sounded no more familiar than this one. `is_unknown` is true where that is below `open_set_.lost`;
        see `predict` for what to expect of it.
        """
        return self.answers(X, top_k, unknown)[0]

    def predict(self, X: Any, unknown: bool | str = False) -> NDArray:
        """Name the player of every recording.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            The recordings, as for `fit`.
        unknown : bool or str
            Whether an answer may be "unknown": none of the players that the model knows. A word takes
            the place of "unknown".

        Returns
        -------
        ndarray, shape (n_recordings,)
            Labels; None for a recording that could not be read where `on_error` is "skip". Of type
            object where "unknown" stands among labels that are no text.

        Raises
        ------
        AudioError
            If a recording cannot be read and `on_error` is "raise".
        InputError
            If `unknown` is the name of a class, or the model cannot tell the unknown.

        Notes
        -----
        Up to one in ten recordings of players that the model knows is called unknown, too: that is how the
        line was drawn, on recordings that were kept from training, and a strange album can cost more. How many
        strangers are then found depends on how well the model tells players apart: `open_set_.auroc`
        says how often a recording of a known player sounded more familiar than one of a player who was left
        out, .5 being chance. It flatters: it rests on few recordings, and the body of a network that was trained
        whole had met these players; try strangers of your own. Of ten jazz pianists,
        whom it names right in 4 of 10 half-minutes, it found 1 stranger in 6 and lost 1 of 8 it knew
        (`benchmarks/unknown.py`).
        """
        check_is_fitted(self)
        word = None if unknown is False else unknown_label(unknown, self.classes_)
        proba, known = self._hear("predict", X, unknown is not False)
        bad = np.isnan(proba).any(axis=1)
        labels = self.classes_[np.where(bad, 0, proba.argmax(axis=1))]
        if word is not None:
            kind = labels.dtype if labels.dtype.kind == "U" else object
            labels = np.where(known < self.open_set_.lost, word, labels.astype(kind))
        if bad.any():
            labels = labels.astype(object)
            labels[bad] = None
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Give the probability of every player for every recording.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            The recordings, as for `fit`.

        Returns
        -------
        ndarray of float32, shape (n_recordings, n_classes)
            In the order of `classes_`. A row is NaN for a recording that could not be read where
            `on_error` is "skip".

        Raises
        ------
        AudioError
            If a recording cannot be read and `on_error` is "raise".
        """
        return self._hear("predict", X)[0]

    def embed(self, X: Any) -> NDArray[np.float32]:
        """Give what the network hears in every recording, before it turns that into names.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            The recordings, as for `fit`.

        Returns
        -------
        ndarray of float32, shape (n_recordings, n_features)
            The mean over the tiles of each; its unit is the network's own. Near in direction is
            alike to the network. A row is NaN for a recording that could not be read where
            `on_error` is "skip".

        Raises
        ------
        AudioError
            If a recording cannot be read and `on_error` is "raise".
        """
        check_is_fitted(self)
        table = list_recordings(X)
        device = resolve_device(self.device)
        rows, infos = zip(
            *embed(
                self.network_.to(device),
                self._pictures(table, X),
                device,
                self.batch_size,
            ),
            strict=True,
        )
        if self.on_error == "raise":
            raise_on_failures(
                "embed",
                table["path"],
                infos,
                "Mend or remove it, or pass on_error='skip'.",
            )
        heard = [row for row in rows if row is not None]
        if not heard:  # only the network knows how many features there are
            heard = [
                embed_tiles(
                    self.network_, np.zeros((1, *self.spec_.size), np.uint8), device
                )[0]
            ]
        return np.stack(
            [np.full_like(heard[0], np.nan) if row is None else row for row in rows]
        )

    def predict_tiles(self, X: Any, top_k: int = 1) -> "pd.DataFrame":
        """Name the player of every few seconds of every recording.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            The recordings, as for `fit`.
        top_k : int
            How many names to list, 1 or more.

        Returns
        -------
        DataFrame
            One row per tile: `path`, `start_seconds`, `end_seconds`, `label`, `probability` and so
            on, `status`, `reason`, `message`; one row without times for a recording that could not
            be read.
        """
        return self.answers(X, top_k)[1]

    def answers(
        self, X: Any, top_k: int = 3, unknown: bool = False
    ) -> tuple["pd.DataFrame", "pd.DataFrame"]:
        """Give what `identify` and `predict_tiles` give, and listen only once.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            The recordings, as for `fit`.
        top_k : int
            How many names to list, 1 or more.
        unknown : bool
            As for `identify`.

        Returns
        -------
        recordings, tiles : DataFrame
            One row per recording, and one row per tile.

        Raises
        ------
        InputError
            If there is no recording, `top_k` is below 1, or the model cannot tell the unknown.
        """
        check_is_fitted(self)
        if (
            isinstance(top_k, bool)
            or not isinstance(top_k, (int, np.integer))
            or top_k < 1
        ):
            raise InputError(
                f"identify: top_k must be 1 or more, got {top_k!r}. Choose a larger number."
            )
        head = self._head_for(unknown)
        table = list_recordings(X)
        heard = list(self._listen(table, X, head is not None))
        paths, names, warmth = table["path"].tolist(), self.classes_, self.temperature_
        recordings = recording_table(paths, heard, names, warmth, top_k)
        if head is not None:
            known = self._judge(heard, head)
            place = recordings.columns.get_loc("status")
            recordings.insert(place, "known", known.round(4))
            strange = [
                None if np.isnan(part) else bool(part < self.open_set_.lost)
                for part in known
            ]
            recordings.insert(place + 1, "is_unknown", strange)
        return recordings, tile_table(paths, heard, names, warmth, self.spec_, top_k)

    def score(
        self, X: Any, y: Sequence[Any] | None = None, sample_weight: Any = None
    ) -> float:
        """Give the part of the recordings that are named right.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            The recordings, as for `fit`.
        y : sequence, optional
            One label per recording; by default what the folders or the table say.
        sample_weight : array-like, optional
            Weight of every recording.

        Returns
        -------
        float
            0 to 1. A recording that could not be read is not named right.

        Raises
        ------
        InputError
            If a label is missing.
        AudioError
            If a recording cannot be read and `on_error` is "raise".
        """
        check_is_fitted(self)
        labels = list_recordings(X, y)["label"].tolist()
        check_labelled("score", labels)
        right = [
            a == b
            for a, b in zip(
                self.predict(X).tolist(), np.asarray(labels).tolist(), strict=True
            )
        ]
        return float(np.average(right, weights=sample_weight))

    def evaluate(
        self,
        X: Any,
        y: Sequence[Any] | None = None,
        groups: Sequence[Any] | None = None,
        *,
        group_by: str | None = None,
    ) -> Evaluation:
        """Score the model on recordings, with an interval, beside chance.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            Recordings that training never met, as for `fit`.
        y : sequence, optional
            One label per recording; by default what the folders or the table say.
        groups : sequence, optional
            One group per recording.
        group_by : str, optional
            Column of a table that names the group.

        Returns
        -------
        Evaluation
            Scores per recording, with intervals over groups; what cannot be read is counted, not scored.

        Raises
        ------
        InputError
            If a label is missing or unknown to the model, or no recording can be read.
        """
        check_is_fitted(self)
        table = list_recordings(X, y, groups, group_by)
        check_labelled("evaluate", table["label"].tolist(), table["path"].tolist())
        codes = encode(table["label"].tolist(), self.classes_)
        heard = list(self._listen(table, X))
        good = [n for n, one in enumerate(heard) if one.recording is not None]
        proba = to_proba(
            np.reshape([heard[n].recording for n in good], (-1, len(self.classes_))),
            self.temperature_,
        )
        names = np.array([str(group) for group in table["group"]])[good]
        paths = [table["path"].iloc[n] for n in good]
        scores = evaluate_proba(
            proba, codes[good], self.classes_, names, len(heard) - len(good), paths
        )
        # arrays have no name: only what they show can tell that training met them
        met = set(self.groups_.tolist()) - {
            path for path in table["path"] if path.startswith("array ")
        }
        same = {
            name
            for n, name in zip(good, names, strict=True)
            if heard[n].info["fingerprint"] in self.fingerprints_
        }
        known = sorted(str(name) for name in same | (met & set(names.tolist())))
        tiles = tuple(one.tiles for one in heard if one.tiles is not None)
        return replace(
            scores,
            known_groups=tuple(known),
            tiles=tiles,
            tile_seconds=self.spec_.tile_seconds,
        )

    def _listen(
        self, table: "pd.DataFrame", X: Any, with_features: bool = False
    ) -> Iterator[RecordingOutput]:
        """Hear every recording of a table in turn."""
        device = resolve_device(self.device)
        return predict_recordings(
            self.network_.to(device),
            self._pictures(table, X),
            device,
            self.batch_size,
            with_features,
        )

    def _hear(
        self, caller: str, X: Any, unknown: bool = False
    ) -> tuple[NDArray[np.float32], NDArray]:
        """Give the probabilities of every recording, and how familiar it is; NaN where it cannot be read."""
        check_is_fitted(self)
        head = self._head_for(unknown)
        table = list_recordings(X)
        heard = list(self._listen(table, X, head is not None))
        if self.on_error == "raise":
            infos = [one.info for one in heard]
            raise_on_failures(
                caller,
                table["path"],
                infos,
                "Use identify for one row each, or on_error='skip'.",
            )
        proba = np.full((len(table), len(self.classes_)), np.nan, dtype=np.float32)
        for row, one in enumerate(heard):
            if one.recording is not None:
                proba[row] = to_proba(one.recording, self.temperature_)
        return proba, np.full(len(heard), np.nan) if head is None else self._judge(
            heard, head
        )

    def _head_for(self, unknown: bool) -> Head | None:
        """Give the head if the unknown is to be told, which must be possible; else None."""
        if not unknown:
            return None
        head = read_head(self.network_)
        check_open_set_ready(self.references_, head)
        return head

    def _judge(
        self, heard: Sequence[RecordingOutput], head: Head
    ) -> NDArray[np.float64]:
        """Say how familiar every recording is."""
        assert self.references_ is not None
        known = np.full(len(heard), np.nan)
        good = [n for n, one in enumerate(heard) if one.features is not None]
        if good:
            known[good] = self.open_set_.judge(
                np.stack([one.features for one in heard if one.features is not None]),
                head,
                self.references_,
            )
        return known

    def _pictures(self, table: "pd.DataFrame", X: Any) -> Iterator[Any]:
        """Draw every recording of a table in turn."""
        resolve_spec(self.spec_, X, "predict")
        jobs = zip(
            table["item"], [self.spec_] * len(table), table["tiles"], strict=True
        )
        return run_parallel(
            try_extract,
            jobs,
            len(table),
            n_jobs=self.n_jobs,
            progress=self._bar(),
            title="listening",
        )

    def _bar(self) -> Progress | None:
        return progress_bar if self.verbose else None


class Classifier(Listener):
    """Say who plays: a pretrained network, fine-tuned on constant-Q pictures of recordings.

    One sample is one recording. `X` is a folder (label = the folder below it, group = the folder
    below that), a csv file or data frame with the columns `path` and `label`, a folder of tiles,
    a sequence of paths, or CQT arrays of shape (n_bins, n_frames). `groups` names what was
    recorded together, such as albums; a group is never split.

    Parameters
    ----------
    backbone : str, optional
        A name of `list_backbones`, or any classification network of timm. By default "notes", which reads the
        notes of a piano and learns from these alone, so that a piano, a room and a record count for less; on tiles
        from which notes cannot be read, such as those of the presets "jazz", "orchestra" and "fast", "resnet18".
    weights : {"imagenet", None} or str or Path
        Where fine-tuning starts: timm's pretrained weights, a local file, the
        folder of a saved model, or at random. "notes" brings its own.
    spec : TileSpec or str, optional
        What a pixel means, or a preset. By default that of the tiles; for recordings "notes" where the
        backbone is that, else "piano".
    in_chans : {3, 1}
        3: the network sees the painted tile. 1: it sees the level, as "notes" always does.
    finetune : {"all", "head"}
        "all" trains every layer. "head" leaves the pretrained body as it is and fits the head to it by
        logistic regression: every tile goes through the network once, and of the arguments from here to
        `workers` none has a say. The validation recordings choose the regularisation; then the head is fitted to
        them, too. "notes" is always fitted so.
    epochs : int
        1 or more. With validation recordings the best epoch is kept.
    batch_size : int
        Tiles in a step, 1 or more.
    learning_rate : float, optional
        Highest rate of AdamW, above 0. By default 1e-3 for backbones with batch norms, 1e-4 for others.
    weight_decay : float
        Of AdamW, 0 or more.
    label_smoothing : float
        Part of a one-hot target shared among all classes, 0 to below 1.
    augment : {"album", "none"}
        "album": every training tile goes through another equaliser, room, level and hiss.
    layer_decay : float, optional
        What the learning rate is multiplied by from one layer to the one below it, above 0 to 1. By
        default 1, but 0.75 for pretrained backbones without batch norms.
    head_first : bool
        Whether the head is fitted to the pretrained features before all layers train.
    mixup : float
        Tiles are mixed in dB, two by two, by Beta(mixup, mixup); 0 does not mix.
    ema : float
        Decay of the moving average of the weights, which is then what is kept; 0 is without.
    patience : int, optional
        Epochs without a lower validation log-loss after which training stops.
    accumulate : int
        Parts in which a batch goes through the network, for want of memory.
    balance : {"group", "class"}
        What is drawn equally often: every class, or every group within it, too.
    workers : int, optional
        Processes that augment tiles; 0 does it in this one. By default 0 on a CPU, where augmentation is a
        fiftieth of a step, and up to 8 beside a GPU.
    validation_fraction : float
        Part of the recordings of each class, in whole groups, that is kept from training to choose
        the epoch and the temperature; 0 to below 1. Not used where `fit` gets `validation`.
    memory : str or Path, optional
        Folder where `finetune="head"` keeps the features of tiles from one fit to the next.
    precision : {"auto", "fp32", "bf16"}
        "auto" is bf16 on a GPU that has it, else fp32.
    device : {None, "cpu", "cuda", "mps"}
        None takes a GPU if there is one; a name that this machine lacks is refused.
    n_jobs : int
        Processes that draw pictures, as joblib counts them.
    on_error : {"raise", "skip"}
        What a recording that cannot be read does in `fit` and `predict`.
    random_state : int
        Seed; the same seed gives the same history.
    verbose : bool
        Whether long work shows how far it is.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        The names, sorted.
    spec_ : TileSpec
        What a pixel means.
    network_ : TileNet
        The fine-tuned network.
    architecture_ : dict
        Its `backbone` and `in_chans`, whatever `set_params` says later.
    temperature_ : float
        Of the probabilities, fitted on validation recordings; 1 without them.
    history_ : list of dict
        Loss, validation accuracy and log-loss per recording, and seconds of every epoch.
    groups_ : ndarray of str
        Groups that were trained on or chosen by, also by the model that `weights` names. A score on
        them says nothing.
    fingerprints_ : list of str
        Of the pictures of their recordings, by which they are known under any name.
    skipped_ : list of dict
        `path`, `reason` and `message` of training recordings that were left out.
    references_ : ReferenceSet
        What the network has to say of its recordings, by which `predict` tells the unknown and `enroll`
        adds a player. None in a model of an older version.
    open_set_ : OpenSetDetector
        How the unknown is told: `score`, `lost` and `auroc`, see `predict`.
    enrolled_ : list of dict
        What `enroll` added: `name`, `n_clips`, `n_albums`, and `right`, the part of the clips that was
        named right when each album, or with one album each clip, was left out in turn.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> spec = TileSpec.preset("fast")
    >>> low, high = np.zeros((2, 96, 1)); low[20], high[70] = 1, 1
    >>> X = [line + 0.1 * rng.random((96, 130)) for line in (low, high) * 3]
    >>> model = Classifier("test_resnet", weights=None, spec=spec, epochs=10, learning_rate=0.01, augment="none",
    ...                    verbose=False)
    >>> model.fit(X, ["left hand", "right hand"] * 3).predict(X[:2]).tolist()
    ['left hand', 'right hand']
    """

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: Any = "imagenet",
        spec: Any = None,
        in_chans: int = 3,
        finetune: str = "all",
        epochs: int = 12,
        batch_size: int = 32,
        learning_rate: float | None = None,
        weight_decay: float = 0.05,
        label_smoothing: float = 0.1,
        augment: str = "album",
        layer_decay: float | None = None,
        head_first: bool = False,
        mixup: float = 0.0,
        ema: float = 0.0,
        patience: int | None = None,
        accumulate: int = 1,
        balance: str = "class",
        workers: int | None = None,
        validation_fraction: float = 0.2,
        memory: str | os.PathLike[str] | None = None,
        precision: str = "auto",
        device: str | None = None,
        n_jobs: int = 1,
        on_error: str = "raise",
        random_state: int = 0,
        verbose: bool = True,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.spec = spec
        self.in_chans = in_chans
        self.finetune = finetune
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.augment = augment
        self.layer_decay = layer_decay
        self.head_first = head_first
        self.mixup = mixup
        self.ema = ema
        self.patience = patience
        self.accumulate = accumulate
        self.balance = balance
        self.workers = workers
        self.validation_fraction = validation_fraction
        self.memory = memory
        self.precision = precision
        self.device = device
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: Sequence[Any] | None = None,
        groups: Sequence[Any] | None = None,
        *,
        group_by: str | None = None,
        validation: Any = None,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> "Classifier":
        """Fine-tune on recordings.

        Parameters
        ----------
        X : folder, csv file, data frame, TileSet, or sequence of paths or CQT arrays
            The recordings.
        y : sequence, optional
            One label per recording; by default what the folders or the table say.
        groups : sequence, optional
            One group per recording.
        group_by : str, optional
            Column of a table that names the group.
        validation : like X, optional
            Recordings to choose the epoch and the temperature by, labelled by folders or a table,
            or a tuple `(X, y)` or `(X, y, groups)`. By default whole groups are split off.
        checkpoint : str or Path, optional
            Folder for the state of the training, written every minute and after every epoch, with
            `history.csv`, the best weights so far and, where TensorBoard is installed, `tensorboard`;
            with `finetune="head"` for the features of tiles.
        resume : bool
            Whether to go on from the checkpoint, if there is one. On a CPU the model is then the
            same, to the bit, as without the interruption.

        Returns
        -------
        Classifier
            Itself.

        Raises
        ------
        InputError
            If an argument cannot be used, there is one class, a class has one recording, or the
            weights cannot be had.
        AudioError
            If a recording cannot be read and `on_error` is "raise".
        TrainingError
            If the loss is no longer a number.
        """
        recipe = TrainingConfig(
            seed=_plain(self.random_state),
            **{name: _plain(getattr(self, name)) for name in _RECIPE},
        )
        if self.on_error not in ("raise", "skip"):
            raise InputError(
                f"fit: on_error must be 'raise' or 'skip', got {self.on_error!r}. Choose one."
            )
        check_fractions(
            label_smoothing=self.label_smoothing,
            validation_fraction=self.validation_fraction,
        )
        self._check_folders(checkpoint, resume)
        table, wanted = list_train_validation(X, y, groups, group_by, validation)
        device = resolve_device(self.device)
        spec = resolve_spec(
            self.spec, X, "fit", NOTES if self.backbone in (None, NOTES) else "piano"
        )
        backbone = (
            (NOTES if reads(spec) else "resnet18")
            if self.backbone is None
            else str(self.backbone)
        )
        if backbone == NOTES:
            recipe = replace(recipe, finetune="head")
        with (
            torch.random.fork_rng()
        ):  # the network comes first: weights that are missing should not cost an hour
            torch.manual_seed(self.random_state)
            network = build_network(
                backbone, len(wanted), spec, self.weights, self.in_chans
            )
        groups_before, fingerprints_before = training_provenance(self.weights)
        strips, table, skipped = load_train_validation(
            table, spec, self.on_error, self.n_jobs, self._bar()
        )
        part = self.validation_fraction if validation is None else None
        corpus, classes = split_training_data(
            strips, table, wanted, part, self.label_smoothing, self.random_state
        )
        trained = self._train(
            network,
            corpus,
            recipe,
            None if checkpoint is None else Path(checkpoint),
            resume,
        )
        network.load_state_dict(trained.state)
        gallery = self._remember(network.to(device), corpus, trained)
        familiarity = select_score(gallery, self.random_state)
        self.network_ = (
            network  # from here on nothing can fail: a stop leaves the model of before
        )
        self.classes_, self.skipped_ = classes, skipped
        self.architecture_ = {"backbone": backbone, "in_chans": int(self.in_chans)}
        self.spec_ = spec
        self.references_, self.open_set_ = gallery, familiarity
        self.enrolled_: list[dict[str, Any]] = []
        self.history_ = trained.history
        held_codes = corpus.targets[corpus.validation].argmax(axis=1)
        self.temperature_ = (
            fit_temperature(trained.validation, held_codes)
            if len(held_codes) >= 2
            else 1.0
        )
        self.groups_ = np.unique([*map(str, table["group"]), *groups_before])
        self.fingerprints_ = sorted({*table["fingerprint"], *fingerprints_before})
        return self

    def _check_folders(self, checkpoint: Any, resume: bool) -> None:
        """Refuse folders that cannot be written before any work is done."""
        if resume and checkpoint is None:
            raise InputError(
                "fit: checkpoint must name a folder to resume from, got None. Pass checkpoint=."
            )
        for name, folder in (("checkpoint", checkpoint), ("memory", self.memory)):
            if folder is not None and (
                not isinstance(folder, (str, os.PathLike)) or not str(folder)
            ):
                raise InputError(
                    f"fit: {name} must be a folder, got {folder!r}. Give its path."
                )
            if folder is not None:
                check_folder(Path(folder))

    def _train(
        self,
        network: TileNet,
        corpus: TrainingData,
        recipe: TrainingConfig,
        checkpoint: Path | None,
        resume: bool,
    ) -> TrainingResult:
        """Train all layers, or the head alone, which keeps the features of tiles where the others keep their state."""
        with default_callbacks(
            self.verbose and recipe.finetune == "all", checkpoint
        ) as watch:
            if recipe.finetune == "all":
                return train(
                    network, corpus, recipe, self.device, watch, checkpoint, resume
                )
            memory = (
                self.memory
                if self.memory is not None or checkpoint is None
                else checkpoint / "features"
            )
            network.to(resolve_device(self.device))
            return train_linear_probe(
                network, corpus, recipe, watch, memory, self._bar()
            )

    def _remember(
        self, network: TileNet, corpus: TrainingData, trained: TrainingResult
    ) -> ReferenceSet:
        """Keep what the body has to say of every recording, which goes through it once more if it moved."""
        places, bar = (
            [*corpus.training.tolist(), *corpus.validation.tolist()],
            self._bar(),
        )
        features = trained.features
        if features is None:
            with retain_freed_memory():
                shown = (
                    iter(places)
                    if bar is None
                    else bar(iter(places), len(places), "remembering")
                )
                device = network.table.device
                features = [
                    embed_tiles(network, corpus.strips.tiles(place), device).mean(
                        axis=0
                    )
                    for place in shown
                ]
        held = np.arange(len(places)) >= len(corpus.training)
        return ReferenceSet(
            np.stack(features), corpus.targets[places].argmax(axis=1), held
        ).thin()

    def enroll(
        self, name: Any, X: Any, groups: Sequence[Any] | None = None
    ) -> "Classifier":
        """Add a player from a few clips, in seconds and without training the network.

        Parameters
        ----------
        name : str, int, float or bool
            Of the new player; of the same kind as the names in `classes_`.
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            Clips of the new player; labels are not looked at.
        groups : sequence, optional
            One album (or session, or concert) per clip. By default what a table says, else the folder of
            the clip.

        Returns
        -------
        Classifier
            Itself, with one class more.

        Raises
        ------
        InputError
            If the model knows the name, or was fitted by an older version or with a head that is not
            linear, or training met a clip.
        AudioError
            If a clip cannot be read and `on_error` is "raise".

        Notes
        -----
        Expect less than of a player who was there from the start: the body of the network stays as it is and
        never learned what sets this one apart. Five half-minutes are a start; clips of two albums or more
        are worth more than more clips of one, since with one the model may learn the record in place of the
        player. The answers for the others change only where they lose a recording to the new one, and they do
        lose some: with eight jazz pianists and two more, on other albums, the new ones were named right as often as
        if they had been trained on (.41), the others less often than before (.24 for .36).
        `enrolled_` and the log say how many clips are named right when they are left out. With one album that
        is better than what to expect on another, and a warning says so.

        References
        ----------
        Hang Qi, Matthew Brown and David G. Lowe, "Low-Shot Learning with Imprinted Weights", 2018.
        """
        check_is_fitted(self)
        name = _plain(name)
        check_new_name(name, self.classes_)
        head, gallery = read_head(self.network_), self.references_
        if head is None or gallery is None:
            raise InputError(
                "enroll: the model must remember its recordings and have a linear head, got an older or "
                "another one. Fit and save it again."
            )
        table = list_recordings(X, groups=groups)
        heard = list(self._listen(table, X, True))
        if self.on_error == "raise":
            raise_on_failures(
                "enroll",
                table["path"],
                [one.info for one in heard],
                "Leave it out, or pass on_error='skip'.",
            )
        good = [n for n, one in enumerate(heard) if one.features is not None]
        prints = [heard[n].info["fingerprint"] for n in good]
        met = [
            n
            for n, mark in zip(good, prints, strict=True)
            if mark in self.fingerprints_
        ]
        if met or not good:
            got = (
                f"{table['path'][met[0]]!r}, which training met"
                if met
                else "none that can be read"
            )
            raise InputError(
                f"enroll: X must hold new clips, got {got}. Give other clips."
            )
        table, features = (
            table.iloc[good],
            np.stack([one.features for one in heard if one.features is not None]),
        )
        place = sum(known < name for known in self.classes_.tolist())
        albums = infer_albums(table)
        row, bias, right = fit_new_row(head, gallery, features, albums)
        widen_head(self.network_, place, row, bias)
        self.classes_ = np.asarray(
            [*self.classes_[:place].tolist(), name, *self.classes_[place:].tolist()]
        )
        self.references_ = gallery.enroll(place, features)
        self.groups_ = np.unique([*self.groups_, *map(str, table["group"])])
        self.fingerprints_ = sorted({*self.fingerprints_, *prints})
        report = {
            "name": name,
            "n_clips": len(good),
            "n_albums": len(set(albums)),
            "right": None if right is None else float(right.mean()),
        }
        self.enrolled_ = [*self.enrolled_, report]
        log.log(*describe_enrollment(report))
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as a folder of safetensors and JSON.

        Parameters
        ----------
        path : str or Path
            New, or an older model that is to be replaced.

        Raises
        ------
        InputError
            If something that is no model lies at the name.
        """
        check_is_fitted(self)
        params = {
            name: _plain(value) for name, value in self.get_params(deep=False).items()
        }
        params["spec"] = (
            asdict(self.spec)
            if isinstance(self.spec, TileSpec)
            else self.spec and str(self.spec)
        )
        params["weights"] = None if self.weights is None else str(self.weights)
        params["backbone"], params["verbose"] = (
            self.backbone and str(self.backbone),
            bool(self.verbose),
        )
        params["memory"] = None if self.memory is None else str(self.memory)
        facts = {
            "temperature": self.temperature_,
            "training_groups": self.groups_.tolist(),
            "fingerprints": self.fingerprints_,
            "history": self.history_,
            "skipped": self.skipped_,
            "params": params,
            "familiarity": asdict(self.open_set_),
            "enrolled": self.enrolled_,
        }
        save_model(
            Path(path),
            self.network_,
            self.architecture_,
            self.spec_,
            self.classes_,
            facts,
            self.references_,
        )
        self.network_.to(resolve_device(self.device))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        return tags


def _plain(value: Any) -> Any:
    """Give a NumPy number, as a grid search sets it, as Python's own; torch and JSON take no other."""
    return value.item() if isinstance(value, np.generic) else value


def load(path: str | os.PathLike[str]) -> Classifier:
    """Open a model that `Classifier.save` wrote.

    Parameters
    ----------
    path : str or Path
        The folder.

    Returns
    -------
    Classifier
        Ready to predict; it gives the same numbers as when it was saved.

    Raises
    ------
    InputError
        If it is no model, is damaged, or does not pass its self-test.
    """
    saved = load_model(Path(path))
    params = dict(saved.facts["params"])
    if params.get("device") != "cpu":  # this machine may have another
        params["device"] = None
    if isinstance(params["spec"], dict):
        params["spec"] = TileSpec.from_dict(params["spec"])
    try:
        model = Classifier(**params)
    except TypeError as err:
        raise InputError(
            f"load: path must be an unchanged model, got {str(path)!r} ({err}). Copy it again."
        ) from err
    model.network_, model.classes_, model.spec_ = (
        saved.network,
        saved.classes,
        saved.spec,
    )
    for name in ("architecture", "temperature", "history", "fingerprints", "skipped"):
        setattr(model, f"{name}_", saved.facts[name])
    model.references_, model.enrolled_ = saved.gallery, saved.facts.get("enrolled", [])
    model.open_set_ = OpenSetDetector(**saved.facts.get("familiarity", {}))
    model.groups_ = np.asarray(saved.facts["training_groups"], dtype=str)
    return model
