"""`Classifier`: fit on recordings of players, then say who plays."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from cqt2img.backbone import TileNet, build_network, find_device
from cqt2img.corpus import Corpus, arrange, draw_sides, list_sides
from cqt2img.disk import check_folder
from cqt2img.errors import InputError
from cqt2img.listener import Listener
from cqt2img.predict import fit_temperature
from cqt2img.recipe import Recipe, check_parts
from cqt2img.spec import TileSpec
from cqt2img.store import load_model, save_model
from cqt2img.tileset import spec_for
from cqt2img.train import Trained, train, train_head
from cqt2img.watch import look_on
from cqt2img.weights import met_before

_RECIPE = (
    "finetune", "epochs", "batch_size", "learning_rate", "weight_decay", "augment", "precision", "layer_decay",
    "head_first", "mixup", "ema", "patience", "accumulate", "balance", "workers",
)  # fmt: skip


class Classifier(Listener):
    """Say who plays: a pretrained image network, fine-tuned on constant-Q pictures of recordings.

    One sample is one recording. `X` is a folder (label = the folder below it, group = the folder
    below that), a csv file or data frame with the columns `path` and `label`, a folder of tiles,
    a sequence of paths, or CQT arrays of shape (n_bins, n_frames). `groups` names what was
    recorded together, such as albums; a group is never split.

    Parameters
    ----------
    backbone : str
        A name of `list_backbones`, or any classification network of timm.
    weights : {"imagenet", None} or str or Path
        Where fine-tuning starts: timm's pretrained weights, a local file, the
        folder of a saved model, or at random.
    spec : TileSpec or str, optional
        What a pixel means, or a preset. By default that of the tiles, or "piano" for recordings.
    in_chans : {3, 1}
        3: the network sees the painted tile. 1: it sees the level.
    finetune : {"all", "head"}
        "all" trains every layer. "head" leaves the pretrained body as it is and fits the head to it by
        logistic regression: every tile goes through the network once, and of the arguments from here to
        `workers` none has a say.
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
        backbone: str = "resnet18",
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
        recipe = Recipe(seed=_plain(self.random_state), **{name: _plain(getattr(self, name)) for name in _RECIPE})
        if self.on_error not in ("raise", "skip"):
            raise InputError(f"fit: on_error must be 'raise' or 'skip', got {self.on_error!r}. Choose one.")
        check_parts(label_smoothing=self.label_smoothing, validation_fraction=self.validation_fraction)
        self._check_folders(checkpoint, resume)
        table, wanted = list_sides(X, y, groups, group_by, validation)
        device = find_device(self.device)
        spec = spec_for(self.spec, X, "fit")
        with torch.random.fork_rng():  # the network comes first: weights that are missing should not cost an hour
            torch.manual_seed(self.random_state)
            network = build_network(self.backbone, len(wanted), spec, self.weights, self.in_chans)
        groups_before, fingerprints_before = met_before(self.weights)
        strips, table, skipped = draw_sides(table, spec, self.on_error, self.n_jobs, self._bar())
        part = self.validation_fraction if validation is None else None
        corpus, classes = arrange(strips, table, wanted, part, self.label_smoothing, self.random_state)
        trained = self._train(network, corpus, recipe, None if checkpoint is None else Path(checkpoint), resume)
        network.load_state_dict(trained.state)
        self.network_ = network.to(device)  # from here on nothing can fail: a stop leaves the model of before
        self.classes_, self.skipped_ = classes, skipped
        self.architecture_ = {"backbone": str(self.backbone), "in_chans": int(self.in_chans)}
        self.spec_ = spec
        self.history_ = trained.history
        held_codes = corpus.targets[corpus.validation].argmax(axis=1)
        self.temperature_ = fit_temperature(trained.validation, held_codes) if len(held_codes) >= 2 else 1.0
        self.groups_ = np.unique([*map(str, table["group"]), *groups_before])
        self.fingerprints_ = sorted({*table["fingerprint"], *fingerprints_before})
        return self

    def _check_folders(self, checkpoint: Any, resume: bool) -> None:
        """Refuse folders that cannot be written before any work is done."""
        if resume and checkpoint is None:
            raise InputError("fit: checkpoint must name a folder to resume from, got None. Pass checkpoint=.")
        for name, folder in (("checkpoint", checkpoint), ("memory", self.memory)):
            if folder is not None and (not isinstance(folder, (str, os.PathLike)) or not str(folder)):
                raise InputError(f"fit: {name} must be a folder, got {folder!r}. Give its path.")
            if folder is not None:
                check_folder(Path(folder))

    def _train(
        self, network: TileNet, corpus: Corpus, recipe: Recipe, checkpoint: Path | None, resume: bool
    ) -> Trained:
        """Train all layers, or the head alone, which keeps the features of tiles where the others keep their state."""
        with look_on(self.verbose and recipe.finetune == "all", checkpoint) as watch:
            if recipe.finetune == "all":
                return train(network, corpus, recipe, self.device, watch, checkpoint, resume)
            memory = self.memory if self.memory is not None or checkpoint is None else checkpoint / "features"
            network.to(find_device(self.device))
            return train_head(network, corpus, recipe, watch, memory, self._bar())

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
        params = {name: _plain(value) for name, value in self.get_params(deep=False).items()}
        params["spec"] = asdict(self.spec) if isinstance(self.spec, TileSpec) else self.spec and str(self.spec)
        params["weights"] = None if self.weights is None else str(self.weights)
        params["backbone"], params["verbose"] = str(self.backbone), bool(self.verbose)
        params["memory"] = None if self.memory is None else str(self.memory)
        facts = {"temperature": self.temperature_, "training_groups": self.groups_.tolist(),
                 "fingerprints": self.fingerprints_, "history": self.history_, "skipped": self.skipped_,
                 "params": params}  # fmt: skip
        save_model(Path(path), self.network_, self.architecture_, self.spec_, self.classes_, facts)
        self.network_.to(find_device(self.device))

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
        raise InputError(f"load: path must be an unchanged model, got {str(path)!r} ({err}). Copy it again.") from err
    model.network_, model.classes_, model.spec_ = saved.network, saved.classes, saved.spec
    for name in ("architecture", "temperature", "history", "fingerprints", "skipped"):
        setattr(model, f"{name}_", saved.facts[name])
    model.groups_ = np.asarray(saved.facts["training_groups"], dtype=str)
    return model
