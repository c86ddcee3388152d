"""Model folders of format 1, written before the package was reorganised."""

from typing import Any, TypeAlias

from numpy.typing import NDArray

JsonObject: TypeAlias = dict[str, Any]

REFERENCES_FILE = "gallery.safetensors"
_TENSORS = {"features": "features", "codes": "class_indices", "held": "is_validation"}
_DETECTOR = {"score": "score_name", "lost": "rejection_rate", "auroc": "auroc"}
_REPORT = {"right": "accuracy"}
_PARAMS = {
    "ema": "ema_decay",
    "accumulate": "accumulation_steps",
    "workers": "num_workers",
    "memory": "cache_dir",
}
# Arguments of `Classifier` that moved into `TrainingConfig`.
_CONFIG = (
    "in_chans",
    "weight_decay",
    "label_smoothing",
    "layer_decay",
    "head_first",
    "mixup",
    "ema_decay",
    "patience",
    "accumulation_steps",
    "balance",
    "num_workers",
    "validation_fraction",
    "precision",
    "cache_dir",
)


def upgrade_json(saved: JsonObject) -> JsonObject:
    """Convert the content of a `model.json` of format 1 to format 2.

    Parameters
    ----------
    saved : dict
        Content of the file.

    Returns
    -------
    dict
        Content of a file of format 2, except that `format` stays 1, because the
        tensors beside it have their old names.

    Raises
    ------
    KeyError, AttributeError
        If the content is damaged.
    """
    # The first models have no references, no detector and no enrolled players.
    detector = saved.get("familiarity", {"score": "neighbours", "lost": 0.1})
    enrolled = saved.get("enrolled", [])
    params = _rename(saved["params"], _PARAMS)
    config = {name: params.pop(name) for name in _CONFIG if name in params}
    return {
        **saved,
        "architecture": {**saved["architecture"], "is_custom": False},
        "references_sha256": saved.get("gallery_sha256"),
        "open_set": _rename(detector, _DETECTOR),
        "enrolled": [_rename(report, _REPORT) for report in enrolled],
        "params": {**params, "config": config},
    }


def upgrade_tensors(tensors: dict[str, NDArray]) -> dict[str, NDArray]:
    """Rename the tensors of a references file of format 1.

    Parameters
    ----------
    tensors : dict of str to ndarray
        Content of the file.

    Returns
    -------
    dict of str to ndarray
        Arguments of `ReferenceSet`.
    """
    return _rename(tensors, _TENSORS)


def _rename(items: JsonObject, names: dict[str, str]) -> JsonObject:
    return {names.get(name, name): value for name, value in items.items()}
