"""The file `model.json` of a saved model: everything but arrays."""

import json
import math
import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import TypedDict, cast

from cqt2img.data.recording_types import Label
from cqt2img.inference import model_format_1
from cqt2img.inference.model import (
    EnrollmentReport,
    FittedModel,
    SkippedRecording,
    TrainingProvenance,
)
from cqt2img.inference.model_format_1 import JsonObject
from cqt2img.inference.open_set import SCORE_NAMES
from cqt2img.tiles.spec import TileSpec

FORMAT = 2
_PROGRAM = "cqt2img"
_PACKAGES = ("cqt2img", "torch", "timm", "librosa")
_LISTS = ("training_groups", "fingerprints", "history", "skipped", "enrolled")


class Architecture(TypedDict):
    """Arguments of `build_network`."""

    backbone: str
    in_chans: int
    is_custom: bool  # whether the backbone is a module of the user


class ModelJson(TypedDict):
    """Content of `model.json`."""

    format: int  # 1 if it was upgraded: then the references have their old names
    made_by: str
    architecture: Architecture
    classes: list[Label]
    spec_key: str
    spec: JsonObject
    weights_sha256: str
    references_sha256: str | None
    versions: dict[str, str]
    temperature: float
    open_set: JsonObject
    training_groups: list[str]
    fingerprints: list[str]
    history: list[JsonObject]
    skipped: list[JsonObject]
    enrolled: list[JsonObject]
    params: JsonObject


def describe_model(
    model: FittedModel,
    params: JsonObject,
    *,
    weights_sha256: str,
    references_sha256: str | None,
) -> ModelJson:
    """Return the content of `model.json`.

    Parameters
    ----------
    model : FittedModel
        The model.
    params : dict
        Arguments of `Classifier`; must be convertible to JSON.
    weights_sha256 : str
        Digest of the file of weights.
    references_sha256 : str or None
        Digest of the file of references; None if there is none.

    Returns
    -------
    ModelJson
        Content of the file.
    """
    versions = {package: version(package) for package in _PACKAGES}
    provenance = model.provenance
    return {
        "format": FORMAT,
        "made_by": _PROGRAM,
        "architecture": {
            "backbone": model.backbone,
            "in_chans": model.in_chans,
            "is_custom": model.network.is_custom,
        },
        "classes": model.classes.tolist(),
        "spec_key": model.spec.key,
        "spec": asdict(model.spec),
        "weights_sha256": weights_sha256,
        "references_sha256": references_sha256,
        "versions": {"python": platform.python_version(), **versions},
        "temperature": model.temperature,
        "open_set": asdict(model.open_set),
        "training_groups": list(provenance.groups),
        "fingerprints": list(provenance.fingerprints),
        "history": [dict(row) for row in provenance.history],
        "skipped": [asdict(recording) for recording in provenance.skipped],
        "enrolled": [asdict(report) for report in provenance.enrolled],
        "params": params,
    }


def parse_model_json(text: str) -> ModelJson:
    """Parse `model.json`, convert it to the current format and check it.

    Parameters
    ----------
    text : str
        Content of the file.

    Returns
    -------
    ModelJson
        Checked content.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError
        If an entry is missing or invalid; the error names it.
    """
    about = json.loads(text)
    if about["made_by"] != _PROGRAM:
        raise ValueError("made_by")
    if about["format"] == 1:
        about = model_format_1.upgrade_json(about)
    elif about["format"] != FORMAT:
        raise ValueError("format")
    TileSpec.from_dict(about["spec"])
    for name in ("spec_key", "weights_sha256", "references_sha256", "versions"):
        about[name]
    for name in ("backbone", "in_chans", "is_custom"):
        about["architecture"][name]
    _check_classes(about["classes"])
    _check_number(about["temperature"], "temperature", low=0.0, high=math.inf)
    _check_number(about["open_set"]["rejection_rate"], "open_set", low=0.0, high=1.0)
    if about["open_set"]["score_name"] not in SCORE_NAMES:
        raise ValueError("open_set")
    for name in _LISTS:
        if not isinstance(about[name], list):
            raise ValueError(name)
    if not isinstance(about["params"], dict):
        raise ValueError("params")
    read_provenance(about)
    return cast(ModelJson, about)


def _check_classes(classes: object) -> None:
    kinds = {type(name) for name in classes} if isinstance(classes, list) else set()
    if len(kinds) != 1 or not kinds <= {str, int, float, bool}:
        raise ValueError("classes")
    assert isinstance(classes, list)
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ValueError("classes")


def _check_number(value: object, name: str, *, low: float, high: float) -> None:
    """Check that a number lies strictly between two others."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low < cast(float, value) < high:
        raise ValueError(name)


def read_provenance(about: ModelJson) -> TrainingProvenance:
    """Return the training provenance that a `model.json` holds.

    Parameters
    ----------
    about : ModelJson
        Content of the file.

    Returns
    -------
    TrainingProvenance
        The data that the model was trained on.

    Raises
    ------
    TypeError
        If a row has other fields than it should have.
    """
    return TrainingProvenance(
        groups=tuple(str(group) for group in about["training_groups"]),
        fingerprints=tuple(about["fingerprints"]),
        history=tuple(about["history"]),
        skipped=tuple(SkippedRecording(**row) for row in about["skipped"]),
        enrolled=tuple(EnrollmentReport(**row) for row in about["enrolled"]),
    )


def is_model_json(text: str) -> bool:
    """Return whether a text is the `model.json` of a saved model of any format.

    Parameters
    ----------
    text : str
        Content of a file.

    Returns
    -------
    bool
        False for invalid JSON, too.
    """
    try:
        return json.loads(text)["made_by"] == _PROGRAM
    except (ValueError, KeyError, TypeError):
        return False
