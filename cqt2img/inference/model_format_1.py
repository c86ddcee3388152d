"""Model folders of format 1, written before the package was reorganised."""

from typing import Any

from numpy.typing import NDArray

REFERENCES_FILE = "gallery.safetensors"
_TENSORS = {"features": "features", "codes": "class_indices", "held": "is_validation"}
_PARAMS = {
    "ema": "ema_decay",
    "accumulate": "accumulation_steps",
    "workers": "num_workers",
    "memory": "cache_dir",
}
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


def upgrade_json(saved: dict[str, Any]) -> dict[str, Any]:
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
    TypeError, AttributeError, KeyError
        If the content is damaged.
    """
    upgraded = dict(saved)
    upgraded["references_sha256"] = upgraded.pop("gallery_sha256", None)
    detector = upgraded.pop("familiarity", None)
    if detector is not None:
        upgraded["open_set"] = {
            "score_name": detector["score"],
            "rejection_rate": detector["lost"],
            "auroc": detector["auroc"],
        }
    upgraded["enrolled"] = [
        {
            "name": report["name"],
            "n_clips": report["n_clips"],
            "n_albums": report["n_albums"],
            "accuracy": report["right"],
        }
        for report in saved.get("enrolled", [])
    ]
    upgraded["params"] = _upgrade_params(saved["params"])
    return upgraded


def _upgrade_params(saved: dict[str, Any]) -> dict[str, Any]:
    """Rename arguments of `Classifier`, and move those of `TrainingConfig`."""
    params = {_PARAMS.get(name, name): value for name, value in saved.items()}
    config = {name: params.pop(name) for name in _CONFIG if name in params}
    return {**params, "config": config}


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
    return {new: tensors[old] for old, new in _TENSORS.items()}
