"""`Classifier`: train on recordings of players, then predict who plays."""

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from cqt2img._utils.files import check_folder
from cqt2img._utils.progress import Progress, progress_bar
from cqt2img.data.dataset import (
    LoadedData,
    list_train_validation,
    load_train_validation,
    split_training_data,
)
from cqt2img.data.extraction import extract_recordings
from cqt2img.data.labels import check_labelled, encode
from cqt2img.data.recordings import Recordings, list_recordings
from cqt2img.data.specs import resolve_spec
from cqt2img.errors import InputError
from cqt2img.evaluation.evaluation import Evaluation, evaluate_proba
from cqt2img.inference.enrollment import check_enrollable, enroll, infer_albums
from cqt2img.inference.model import (
    TrainingProvenance,
)
from cqt2img.inference.model_io import load_model, save_model
from cqt2img.inference.open_set import (
    resolve_unknown_label,
)
from cqt2img.inference.predict import (
    RecordingOutput,
    embed_recordings,
    embed_tiles,
    predict_recordings,
)
from cqt2img.inference.tables import recording_table, tile_table
from cqt2img.models.device import resolve_device
from cqt2img.models.factory import build_network
from cqt2img.models.notes import NOTES, can_read_notes
from cqt2img.models.weights import training_provenance
from cqt2img.tiles.extract import raise_on_failures
from cqt2img.tiles.spec import TileSpec
from cqt2img.training.config import (
    TrainingConfig,
    TrainingSettings,
    unused_settings,
)
from cqt2img.training.fit import fit_model

if TYPE_CHECKING:
    import pandas as pd

_CONFIG_PREFIX = "config__"
_SKIP_ADVICE = "Repair or remove it, or pass on_error='skip'."


class Classifier(ClassifierMixin, BaseEstimator):
    """Classifier of performers: a pretrained backbone, trained on CQT tiles.

    One sample is one recording. `X` is a folder (label: the folder below it, group:
    the folder below that), a csv file or data frame with the columns `path` and
    `label`, a folder of tiles, a sequence of paths, or CQT arrays of shape
    (n_bins, n_frames). `groups` names what was recorded together, such as albums; a
    group is never split.

    Parameters
    ----------
    backbone : str or torch.nn.Module, optional
        A name of `list_backbones`, any classification network of timm, or a module
        of your own that maps images (n, in_chans, height, width) to features
        (n, n_features). By default "notes", which transcribes piano notes and
        classifies what is played; on tiles that it cannot read, such as those of the
        presets "jazz", "orchestra" and "fast", "resnet18".
    weights : {"imagenet", None} or str or Path
        Initial weights: those of timm, a local file, the folder of a saved model, or
        random ones (None). "notes" has its own.
    spec : TileSpec or str, optional
        Spec of the tiles, or the name of a preset. By default that of the tiles; for
        recordings the preset "notes" with that backbone, else "piano".
    finetune : {"all", "head"}
        "all" trains every layer. "head" fits the head to the embeddings of the
        pretrained backbone by logistic regression; validation recordings choose the
        regularisation, then the head is fitted to these, too. "notes" is always
        fitted so.
    epochs : int
        Number of epochs, 1 or more. With validation recordings the epoch of lowest
        log-loss is kept.
    batch_size : int
        Number of tiles per step, 1 or more.
    learning_rate : float, optional
        Highest learning rate of AdamW, above 0. By default 1e-3 for backbones with
        batch norms, 1e-4 for others.
    augment : {"album", "none"} or callable
        "album" gives every training tile another equaliser, room, level and noise.
        Or an albumentations transform, or a function from levels (height, width)
        uint8 to the same.
    device : {"cpu", "cuda", "mps"}, optional
        By default a GPU if there is one.
    n_jobs : int
        Number of processes that render recordings, as joblib counts them.
    on_error : {"raise", "skip"}
        Whether a recording that cannot be read raises AudioError, in `fit` and in
        the methods that return arrays.
    random_state : int
        Seed, 0 to 4294967295.
    verbose : bool
        Whether to show progress bars.
    config : TrainingConfig, optional
        Settings that are rarely changed. `set_params` and grid searches reach them
        as `config__mixup` and so on.

    Attributes
    ----------
    model_ : FittedModel
        All that the predictions depend on; what follows are parts of it.
    classes_ : ndarray, shape (n_classes,)
        Labels, sorted.
    spec_ : TileSpec
        Spec of the tiles.
    network_ : TileNet
        The trained network.
    temperature_ : float
        Temperature of the probabilities, fitted on validation recordings; 1 without.
    history_ : tuple of dict
        Per epoch: loss, validation accuracy and log-loss per recording, seconds.
    groups_ : tuple of str
        Groups used for training or validation, also of the model that `weights`
        names. Scores on them do not measure generalisation.
    fingerprints_ : tuple of str
        Hashes of the tiles of these recordings.
    skipped_ : tuple of SkippedRecording
        Training recordings that could not be read.
    references_ : ReferenceSet or None
        Embeddings of the training recordings, for `unknown=` and `enroll`.
    open_set_ : OpenSetDetector
        Rule by which a recording is called unknown.
    enrolled_ : tuple of EnrollmentReport
        Players added by `enroll`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> spec = TileSpec.preset("fast")
    >>> low, high = np.zeros((2, 96, 1)); low[20], high[70] = 1, 1
    >>> X = [line + 0.1 * rng.random((96, 130)) for line in (low, high) * 3]
    >>> y = ["left hand", "right hand"] * 3
    >>> model = Classifier("test_resnet", weights=None, spec=spec, epochs=10,
    ...                    learning_rate=0.01, augment="none", verbose=False)
    >>> model.fit(X, y).predict(X[:2]).tolist()
    ['left hand', 'right hand']
    """

    def __init__(
        self,
        backbone: "str | torch.nn.Module | None" = None,
        *,
        weights: str | os.PathLike[str] | None = "imagenet",
        spec: TileSpec | str | os.PathLike[str] | None = None,
        finetune: str = "all",
        epochs: int = 12,
        batch_size: int = 32,
        learning_rate: float | None = None,
        augment: Any = "album",
        device: str | None = None,
        n_jobs: int = 1,
        on_error: str = "raise",
        random_state: int = 0,
        verbose: bool = True,
        config: TrainingConfig | None = None,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.spec = spec
        self.finetune = finetune
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.augment = augment
        self.device = device
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.random_state = random_state
        self.verbose = verbose
        self.config = config

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments of the constructor.

        Parameters
        ----------
        deep : bool
            Whether to add the settings of `config` as `config__mixup` and so on.

        Returns
        -------
        dict
            Values by name.
        """
        params = super().get_params(deep=False)
        config = TrainingConfig() if self.config is None else self.config
        # any other object is an error of `fit`, not of the constructor
        if deep and isinstance(config, TrainingConfig):
            for setting in fields(TrainingConfig):
                name = _CONFIG_PREFIX + setting.name
                params[name] = getattr(config, setting.name)
        return params

    def set_params(self, **params: Any) -> Self:
        """Set arguments of the constructor.

        Parameters
        ----------
        **params : dict
            Values by name; `config__mixup` sets `mixup` in `config`.

        Returns
        -------
        Classifier
            Itself.
        """
        settings = {
            name.removeprefix(_CONFIG_PREFIX): params.pop(name)
            for name in list(params)
            if name.startswith(_CONFIG_PREFIX)
        }
        super().set_params(**params)
        if settings:
            before = {} if self.config is None else self.config.to_dict()
            self.config = TrainingConfig.from_dict({**before, **settings})
        return self

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
    ) -> Self:
        """Train on recordings.

        Parameters
        ----------
        X : folder, csv file, data frame, TileSet, or sequence of paths or CQT arrays
            Recordings.
        y : sequence, optional
            One label per recording. By default that of the folder or table.
        groups : sequence, optional
            One group per recording.
        group_by : str, optional
            Column of a table that names the group.
        validation : like X, or indices, optional
            Recordings that choose the epoch and the temperature, labelled by folders
            or a table; a tuple `(X, y)` or `(X, y, groups)`; or indices into `X`, or
            a mask, such as a fold of your own. By default whole groups of `X`.
        checkpoint : str or Path, optional
            Folder for the state of training, written every minute and after every
            epoch, with `history.csv`, the best weights so far and, if TensorBoard is
            installed, `tensorboard`; with `finetune="head"` for embeddings of tiles.
        resume : bool
            Whether to continue from the checkpoint, if there is one. On a CPU the
            model is then the same, to the bit, as without interruption.

        Returns
        -------
        Classifier
            Itself. An interrupt or an error leaves a previously fitted model
            unchanged.

        Raises
        ------
        InputError
            If an argument is not valid, there is only one class, a class has only
            one recording, or the weights are not available.
        AudioError
            If a recording cannot be read and `on_error` is "raise".
        TrainingError
            If the loss is not finite.

        Warns
        -----
        UserWarning
            If an argument has no effect on this training.
        """
        settings = self._training_settings()
        checkpoint = self._check_folders(settings, checkpoint, resume)
        listed = list_train_validation(X, y, groups, group_by, validation)
        default = NOTES if self.backbone in (None, NOTES) else "piano"
        spec = resolve_spec(self.spec, X, "fit", default)
        backbone = self._resolve_backbone(spec)
        if backbone == NOTES:
            settings = replace(settings, finetune="head")
        self._warn_unused(settings, backbone, validation)
        # the network comes first: missing weights should not cost an hour of rendering
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            network = build_network(
                backbone,
                len(listed.classes),
                spec,
                self.weights,
                settings.config.in_chans,
            )
        loaded = load_train_validation(
            listed, spec, self.on_error, self.n_jobs, self._progress()
        )
        fraction = settings.config.validation_fraction if validation is None else None
        data, classes = split_training_data(
            loaded, fraction, settings.config.label_smoothing, settings.seed
        )
        self.model_ = fit_model(
            network,
            backbone if isinstance(backbone, str) else type(backbone).__name__,
            data,
            classes,
            settings,
            provenance=self._provenance(loaded),
            device=self.device,
            checkpoint=checkpoint,
            resume=resume,
            show_progress=self.verbose and settings.finetune == "all",
            progress=self._progress(),
        )
        return self

    def _training_settings(self) -> TrainingSettings:
        if self.on_error not in ("raise", "skip"):
            raise InputError(
                f"fit: on_error must be 'raise' or 'skip', got {self.on_error!r}."
            )
        return TrainingSettings(
            finetune=self.finetune,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            augment=self.augment,
            seed=self.random_state,
            config=TrainingConfig() if self.config is None else self.config,
        )

    def _check_folders(
        self,
        settings: TrainingSettings,
        checkpoint: str | os.PathLike[str] | None,
        resume: bool,
    ) -> Path | None:
        """Check that folders can be written before any work is done."""
        if resume and checkpoint is None:
            raise InputError(
                "fit: resume=True needs a folder to continue from. Pass checkpoint=."
            )
        if settings.config.cache_dir is not None:
            _check_writable("config: cache_dir", Path(settings.config.cache_dir))
        if checkpoint is None:
            return None
        if not isinstance(checkpoint, (str, os.PathLike)) or not str(checkpoint):
            raise InputError(f"fit: checkpoint={checkpoint!r} is not a path.")
        _check_writable("fit: checkpoint", Path(checkpoint))
        return Path(checkpoint)

    def _resolve_backbone(self, spec: TileSpec) -> "str | torch.nn.Module":
        if self.backbone is None:
            return NOTES if can_read_notes(spec) else "resnet18"
        return self.backbone

    def _warn_unused(
        self,
        settings: TrainingSettings,
        backbone: "str | torch.nn.Module",
        validation: Any,
    ) -> None:
        """Warn about arguments that have no effect on this training."""
        name = backbone if isinstance(backbone, str) else type(backbone).__name__
        trained = "all layers are trained"
        if settings.finetune == "head":
            trained = "only the linear head is fitted"
        _warn(settings, unused_settings(settings), f"with backbone {name!r} {trained}")
        if backbone == NOTES:
            changed = _changed("in_chans", settings)
            _warn(settings, changed, "backbone 'notes' always reads levels")
        if validation is not None:
            changed = _changed("validation_fraction", settings)
            _warn(settings, changed, "validation recordings were passed")

    def _provenance(self, loaded: LoadedData) -> TrainingProvenance:
        """Return what this model and its initial weights were trained on."""
        groups, fingerprints = training_provenance(self.weights)
        return TrainingProvenance(
            groups=tuple(sorted({*loaded.recordings.groups, *groups})),
            fingerprints=tuple(sorted({*loaded.fingerprints, *fingerprints})),
            skipped=tuple(loaded.skipped),
        )

    def predict(self, X: Any, unknown: bool | str = False) -> NDArray:
        """Predict the player of every recording.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            Recordings, as for `fit`.
        unknown : bool or str
            Whether to detect players that are not in the model. They are labelled
            "unknown", or by the given text.

        Returns
        -------
        ndarray, shape (n_recordings,)
            Labels; None for an unreadable recording if `on_error` is "skip".

        Raises
        ------
        AudioError
            If a recording cannot be read and `on_error` is "raise".
        InputError
            If `unknown` is the name of a class, or the model cannot detect unknown
            players.

        Notes
        -----
        The threshold is chosen on validation recordings so that at most one in ten
        recordings of known players is called unknown; unusual albums may exceed it.
        How many unknown players are detected depends on how well the model separates
        players: `open_set_.auroc` is the probability that a known player scores
        higher than one left out of training, .5 being chance. It is optimistic,
        since the backbone was trained on these players. Of ten jazz pianists, whom
        an image network named right in 4 of 10 half-minutes, it detected 1 unknown
        recording in 6 and lost 1 known recording in 8 (`benchmarks/unknown.py`).
        """
        check_is_fitted(self)
        unknown_label = None
        if unknown is not False:
            unknown_label = resolve_unknown_label(unknown, self.classes_)
            self.model_.check_open_set_ready()
        outputs = self._outputs("predict", X, with_embeddings=unknown is not False)
        proba = self.model_.predict_proba(outputs)
        is_bad = np.isnan(proba).any(axis=1)
        best = np.where(is_bad, 0, proba.argmax(axis=1))
        labels = self.classes_[best]
        if unknown_label is not None:
            is_unknown = (
                self.model_.open_set_p_values(outputs) < self.open_set_.rejection_rate
            )
            dtype = labels.dtype if labels.dtype.kind == "U" else object
            labels = np.where(is_unknown, unknown_label, labels.astype(dtype))
        if is_bad.any():
            labels = labels.astype(object)
            labels[is_bad] = None
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Predict the probability of every player for every recording.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            Recordings, as for `fit`.

        Returns
        -------
        ndarray of float32, shape (n_recordings, n_classes)
            Calibrated probabilities in the order of `classes_`; NaN for an unreadable
            recording if `on_error` is "skip".

        Raises
        ------
        AudioError
            If a recording cannot be read and `on_error` is "raise".
        """
        check_is_fitted(self)
        return self.model_.predict_proba(self._outputs("predict_proba", X))

    def embed(self, X: Any) -> NDArray[np.float32]:
        """Compute backbone embeddings of recordings.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            Recordings, as for `fit`.

        Returns
        -------
        ndarray of float32, shape (n_recordings, n_features)
            Mean over the tiles of each recording; compare by cosine. NaN for an
            unreadable recording if `on_error` is "skip".

        Raises
        ------
        AudioError
            If a recording cannot be read and `on_error` is "raise".
        """
        check_is_fitted(self)
        recordings = list_recordings(X, caller="embed")
        device = resolve_device(self.device)
        extracted = self._extract(recordings, X)
        embedded = list(
            embed_recordings(
                self.network_.to(device), extracted, device, self.batch_size
            )
        )
        if self.on_error == "raise":
            infos = [info for _, info in embedded]
            raise_on_failures("embed", recordings.paths, infos, _SKIP_ADVICE)
        # an empty tile tells the number of features, where no recording can be read
        empty = np.zeros((1, *self.spec_.size), np.uint8)
        example = embed_tiles(self.network_, empty, device)[0]
        features = np.full((len(embedded), len(example)), np.nan, np.float32)
        for row, (embedding, _) in zip(features, embedded, strict=True):
            if embedding is not None:
                row[:] = embedding
        return features

    def identify(self, X: Any, top_k: int = 3, unknown: bool = False) -> "pd.DataFrame":
        """Predict the player of every recording, as a table with a row for each.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            Recordings, as for `fit`.
        top_k : int
            Number of labels per recording, 1 or more.
        unknown : bool
            Whether to detect players that are not in the model, too.

        Returns
        -------
        DataFrame
            `path`, `label`, `probability`, `label_2`, `probability_2` and so on,
            `status` ("ok" or "error"), `reason`, `message`. An unreadable recording
            has no label. With `unknown`, before the status: `known` and `is_unknown`.

        Raises
        ------
        InputError
            If there is no recording, `top_k` is below 1, or the model cannot detect
            unknown players.

        Notes
        -----
        `label` is always the most probable known player. `known`, 0 to 1, is the
        fraction of validation recordings of known players that scored no higher;
        `is_unknown` is true where it is below `open_set_.rejection_rate`.
        """
        return self.predict_tables(X, top_k, unknown)[0]

    def predict_tiles(self, X: Any, top_k: int = 1) -> "pd.DataFrame":
        """Predict the player of every tile of every recording.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            Recordings, as for `fit`.
        top_k : int
            Number of labels per tile, 1 or more.

        Returns
        -------
        DataFrame
            One row per tile: `path`, `start_seconds`, `end_seconds`, `label`,
            `probability` and so on, `status`, `reason`, `message`; one row without
            times for an unreadable recording.
        """
        return self.predict_tables(X, top_k)[1]

    def predict_tables(
        self, X: Any, top_k: int = 3, unknown: bool = False
    ) -> tuple["pd.DataFrame", "pd.DataFrame"]:
        """Return the tables of `identify` and `predict_tiles` from one prediction.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            Recordings, as for `fit`.
        top_k : int
            Number of labels, 1 or more.
        unknown : bool
            As for `identify`.

        Returns
        -------
        recordings, tiles : DataFrame
            One row per recording, and one row per tile.

        Raises
        ------
        InputError
            If there is no recording, `top_k` is below 1, or the model cannot detect
            unknown players.
        """
        check_is_fitted(self)
        is_integer = isinstance(top_k, (int, np.integer)) and top_k is not True
        if not is_integer or top_k < 1:
            raise InputError(f"identify: top_k={top_k!r} must be 1 or more.")
        if unknown:
            self.model_.check_open_set_ready()
        recordings = list_recordings(X, caller="predict")
        outputs = list(self._run(recordings, X, with_embeddings=bool(unknown)))
        paths = recordings.paths
        by_recording = recording_table(
            paths, outputs, self.model_, top_k=top_k, with_open_set=bool(unknown)
        )
        return by_recording, tile_table(paths, outputs, self.model_, top_k=top_k)

    def score(
        self,
        X: Any,
        y: Sequence[Any] | None = None,
        sample_weight: Sequence[float] | NDArray[np.floating] | None = None,
    ) -> float:
        """Compute the accuracy over recordings.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            Recordings, as for `fit`.
        y : sequence, optional
            One label per recording. By default that of the folder or table.
        sample_weight : array-like, optional
            Weight of every recording.

        Returns
        -------
        float
            0 to 1; an unreadable recording counts as wrong.

        Raises
        ------
        InputError
            If a label is missing.
        AudioError
            If a recording cannot be read and `on_error` is "raise".
        """
        check_is_fitted(self)
        labels = list_recordings(X, y, caller="score").labels
        check_labelled("score", labels)
        predicted = self.predict(X).tolist()
        expected = np.asarray(labels).tolist()
        is_right = [a == b for a, b in zip(predicted, expected, strict=True)]
        return float(np.average(is_right, weights=sample_weight))

    def evaluate(
        self,
        X: Any,
        y: Sequence[Any] | None = None,
        groups: Sequence[Any] | None = None,
        *,
        group_by: str | None = None,
    ) -> Evaluation:
        """Evaluate the model on recordings, with intervals over groups.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            Recordings absent from training, as for `fit`.
        y : sequence, optional
            One label per recording. By default that of the folder or table.
        groups : sequence, optional
            One group per recording.
        group_by : str, optional
            Column of a table that names the group.

        Returns
        -------
        Evaluation
            Scores per recording; unreadable recordings are counted, not scored.

        Raises
        ------
        InputError
            If a label is missing or not in the model, or no recording can be read.
        """
        check_is_fitted(self)
        recordings = list_recordings(X, y, groups, group_by, caller="evaluate")
        check_labelled("evaluate", recordings.labels, recordings.paths)
        class_indices = encode(recordings.labels, self.classes_, caller="evaluate")
        outputs = list(self._run(recordings, X))
        good = [n for n, one in enumerate(outputs) if one.log_proba is not None]
        readable = recordings.select(good)
        outputs = [outputs[n] for n in good]
        scores = evaluate_proba(
            self.model_.predict_proba(outputs),
            class_indices[good],
            self.classes_,
            np.array(readable.groups, dtype=str),
            paths=readable.paths,
            n_failed=len(recordings) - len(good),
        )
        return replace(
            scores,
            known_groups=self._training_groups(readable, outputs),
            tile_log_proba=tuple(
                one.tile_log_proba for one in outputs if one.tile_log_proba is not None
            ),
            tile_seconds=self.spec_.tile_seconds,
        )

    def _training_groups(
        self, recordings: Recordings, outputs: Sequence[RecordingOutput]
    ) -> tuple[str, ...]:
        """Return the groups of recordings that training used, by name or by content."""
        groups = set(self.model_.provenance.groups)
        fingerprints = set(self.model_.provenance.fingerprints)
        found = set()
        for recording, output in zip(recordings, outputs, strict=True):
            # arrays in memory have no name: their group says nothing about training
            is_named = not recording.path.startswith("array ")
            if output.info.fingerprint in fingerprints or (
                is_named and recording.group in groups
            ):
                found.add(recording.group)
        return tuple(sorted(found))

    def enroll(
        self,
        name: str | int | float | bool,
        X: Any,
        groups: Sequence[Any] | None = None,
    ) -> Self:
        """Add a player from a few clips, in seconds and without training.

        Parameters
        ----------
        name : str, int, float or bool
            Label of the new player, of the same type as those in `classes_`.
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            Clips of the new player; labels are ignored.
        groups : sequence, optional
            One album (or session, or concert) per clip. By default that of the
            table, else the folder of the clip.

        Returns
        -------
        Classifier
            Itself, with one class more.

        Raises
        ------
        InputError
            If the name is a class of the model, the model has no references or no
            linear head, or training used one of the clips.
        AudioError
            If a clip cannot be read and `on_error` is "raise".

        Notes
        -----
        Expect less than of a player in the training set: the backbone stays as it is.
        Five half-minutes are a start; clips of several albums are worth more than
        more clips of one, from which the model may learn the album in place of the
        player. With eight jazz pianists and two enrolled ones, on other albums, the
        enrolled ones were named right as often as if trained on (.41), at the expense
        of the others (.36 to .24). `enrolled_` and the log report the accuracy on
        left-out clips.

        References
        ----------
        Hang Qi, Matthew Brown and David G. Lowe, "Low-Shot Learning with Imprinted
        Weights", 2018.
        """
        check_is_fitted(self)
        name = name.item() if isinstance(name, np.generic) else name
        check_enrollable(self.model_, name)
        recordings = list_recordings(X, groups=groups, caller="enroll")
        outputs = list(self._run(recordings, X, with_embeddings=True))
        if self.on_error == "raise":
            infos = [output.info for output in outputs]
            raise_on_failures("enroll", recordings.paths, infos, _SKIP_ADVICE)
        self.model_ = enroll(
            self.model_,
            name,
            outputs,
            infer_albums(recordings),
            groups=recordings.groups,
            paths=recordings.paths,
        )
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the model as a folder of safetensors and JSON.

        Parameters
        ----------
        path : str or Path
            New, or an older model that is replaced.

        Raises
        ------
        InputError
            If the path holds something that is not a model.
        """
        check_is_fitted(self)
        params = self.get_params(deep=False)
        if isinstance(self.spec, TileSpec):
            params["spec"] = asdict(self.spec)
        if self.config is not None:
            params["config"] = self.config.to_dict()
        save_model(
            Path(path), self.model_, {k: _json_value(v) for k, v in params.items()}
        )
        self.model_.to(resolve_device(self.device))

    def _outputs(
        self, caller: str, X: Any, *, with_embeddings: bool = False
    ) -> list[RecordingOutput]:
        """Run the network on recordings; raise on failures if `on_error` says so."""
        recordings = list_recordings(X, caller=caller)
        outputs = list(self._run(recordings, X, with_embeddings=with_embeddings))
        if self.on_error == "raise":
            infos = [output.info for output in outputs]
            advice = "Use identify for one row each, or on_error='skip'."
            raise_on_failures(caller, recordings.paths, infos, advice)
        return outputs

    def _run(
        self, recordings: Recordings, X: Any, *, with_embeddings: bool = False
    ) -> Iterator[RecordingOutput]:
        device = resolve_device(self.device)
        return predict_recordings(
            self.network_.to(device),
            self._extract(recordings, X),
            device,
            self.batch_size,
            with_embeddings,
        )

    def _extract(self, recordings: Recordings, X: Any) -> Iterator[Any]:
        """Compute or read the tiles of every recording in turn."""
        resolve_spec(self.spec_, X, "predict")
        return extract_recordings(
            recordings, self.spec_, self.n_jobs, self._progress(), "predicting"
        )

    def _progress(self) -> Progress | None:
        return progress_bar if self.verbose else None

    classes_ = property(attrgetter("model_.classes"))
    spec_ = property(attrgetter("model_.spec"))
    network_ = property(attrgetter("model_.network"))
    temperature_ = property(attrgetter("model_.temperature"))
    references_ = property(attrgetter("model_.references"))
    open_set_ = property(attrgetter("model_.open_set"))

    history_ = property(attrgetter("model_.provenance.history"))
    groups_ = property(attrgetter("model_.provenance.groups"))
    fingerprints_ = property(attrgetter("model_.provenance.fingerprints"))
    skipped_ = property(attrgetter("model_.provenance.skipped"))
    enrolled_ = property(attrgetter("model_.provenance.enrolled"))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        return tags


def _check_writable(argument: str, folder: Path) -> None:
    """Check that files can be written to a folder; the error names the argument."""
    try:
        check_folder(folder)
    except InputError as error:
        raise InputError(f"{argument}: {error}") from error


def _setting(settings: TrainingSettings, name: str) -> Any:
    owner = settings.config if hasattr(settings.config, name) else settings
    return getattr(owner, name)


def _warn(settings: TrainingSettings, names: Sequence[str], reason: str) -> None:
    """Warn that settings have no effect, if there are any."""
    if not names:
        return
    arguments = ", ".join(f"{name}={_setting(settings, name)!r}" for name in names)
    verb, pronoun = ("has", "it") if len(names) == 1 else ("have", "them")
    warnings.warn(
        f"fit: {arguments} {verb} no effect: {reason}. Remove {pronoun}.",
        stacklevel=4,  # the line that calls `fit`
    )


def _changed(name: str, settings: TrainingSettings) -> list[str]:
    """Return the name of a setting if it is not the default."""
    is_default = _setting(settings, name) == _setting(TrainingSettings(), name)
    return [] if is_default else [name]


def _json_value(value: Any) -> Any:
    """Return an argument as JSON can hold it."""
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str, dict)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return repr(value)  # a transform or module: named, not stored


def load(
    path: str | os.PathLike[str], *, backbone: torch.nn.Module | None = None
) -> Classifier:
    """Open a model that `Classifier.save` wrote.

    Parameters
    ----------
    path : str or Path
        The folder.
    backbone : torch.nn.Module, optional
        The backbone of a model that was trained with a module of your own; a model
        folder holds its weights, not its code.

    Returns
    -------
    Classifier
        Ready to predict; its predictions are those of the saved model.

    Raises
    ------
    InputError
        If the folder holds no model, a damaged one, or one that fails its self-test,
        or if it needs a backbone of your own that was not passed.
    """
    model, params = load_model(Path(path), backbone=backbone)
    if backbone is not None:
        params["backbone"] = backbone
    if params.get("device") != "cpu":  # this machine may have another
        params["device"] = None
    if isinstance(params["spec"], dict):
        params["spec"] = TileSpec.from_dict(params["spec"])
    if params.get("config") is not None:
        params["config"] = TrainingConfig.from_dict(params["config"])
    try:
        classifier = Classifier(**params)
    except TypeError as error:
        raise InputError(
            f"load: {str(path)!r} holds a changed model ({error}). Copy it again."
        ) from error
    classifier.model_ = model
    return classifier
