"""A fitted model as a folder of safetensors and JSON.

Such a folder opens offline, without pickle and without running code.
"""

import hashlib
import json
import platform
import shutil
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img.errors import InputError
from cqt2img.inference import model_format_1
from cqt2img.inference.model import (
    EnrollmentReport,
    FittedModel,
    SkippedRecording,
    TrainingProvenance,
)
from cqt2img.inference.open_set import OpenSetDetector
from cqt2img.inference.predict import tile_log_proba
from cqt2img.inference.references import ReferenceSet
from cqt2img.models.factory import TileNet, build_network
from cqt2img.tiles.spec import TileSpec

_FORMAT = 2
_JSON = "model.json"
_WEIGHTS = "model.safetensors"
_SELFTEST = "selftest.safetensors"
_REFERENCES = "references.safetensors"  # absent if the model has no references
_FILES = {_JSON, _WEIGHTS, _SELFTEST, _REFERENCES, model_format_1.REFERENCES_FILE}
_LISTS = ("training_groups", "fingerprints", "history", "skipped", "enrolled")
# Of a log-probability; other processors add up in another order.
_TOLERANCE = 1e-3


def save_model(path: Path, model: FittedModel, params: dict[str, Any]) -> None:
    """Write a model folder, whole or not at all.

    Parameters
    ----------
    path : Path
        New, or a model that is to be replaced.
    model : FittedModel
        The model.
    params : dict
        Arguments of `Classifier`; must be convertible to JSON.

    Raises
    ------
    InputError
        If something else than a model is at `path`, or the network returns NaN.
    """
    check_model_path(path)
    folder = path.resolve()  # a link to a model stays a link
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        _write_tensors(part, model)
        about = _describe(part, model) | {"params": params}
        text = json.dumps(about, indent=1) + "\n"
        (part / _JSON).write_text(text, encoding="utf-8")
        part.chmod(0o755)
        _replace_folder(folder, part)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_tensors(folder: Path, model: FittedModel) -> None:
    from safetensors.numpy import save_file
    from safetensors.torch import save_file as save_tensors

    state = model.network.state_dict()
    weights = {name: value.cpu().contiguous() for name, value in state.items()}
    save_tensors(weights, folder / _WEIGHTS)
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, size=(2, *model.spec.size), dtype=np.uint8)
    device = model.network.table.device
    try:
        log_proba = _predict_on_cpu(model.network.cpu(), tiles)
    finally:
        model.network.to(device)
    if not np.isfinite(log_proba).all():
        raise InputError(
            "save: the model returns NaN or infinity. "
            "Fit it with a lower learning_rate."
        )
    save_file({"tiles": tiles, "log_proba": log_proba}, folder / _SELFTEST)
    if model.references is not None:
        save_file(vars(model.references), folder / _REFERENCES)


def _describe(folder: Path, model: FittedModel) -> dict[str, Any]:
    """Return the content of `model.json`, except the arguments of `Classifier`."""
    references_sha256 = None
    if model.references is not None:
        references_sha256 = _digest(folder / _REFERENCES)
    versions = {n: version(n) for n in ("cqt2img", "torch", "timm", "librosa")}
    provenance = model.provenance
    return {
        "format": _FORMAT,
        "made_by": "cqt2img",
        "architecture": {"backbone": model.backbone, "in_chans": model.in_chans},
        "classes": model.classes.tolist(),
        "spec_key": model.spec.key,
        "spec": asdict(model.spec),
        "weights_sha256": _digest(folder / _WEIGHTS),
        "references_sha256": references_sha256,
        "versions": {"python": platform.python_version(), **versions},
        "temperature": model.temperature,
        "open_set": asdict(model.open_set),
        "training_groups": list(provenance.groups),
        "fingerprints": list(provenance.fingerprints),
        "history": [dict(row) for row in provenance.history],
        "skipped": [asdict(one) for one in provenance.skipped],
        "enrolled": [asdict(report) for report in provenance.enrolled],
    }


def _replace_folder(folder: Path, part: Path) -> None:
    """Move the new folder to its name; an older one is deleted only then."""
    if not folder.exists():
        part.rename(folder)
        return
    aside = part.with_name(f"{part.name}.old")
    folder.rename(aside)
    try:
        part.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    shutil.rmtree(aside)


def check_model_path(path: Path) -> None:
    """Check that a model may be written to a path, before any work is done.

    Parameters
    ----------
    path : Path
        Folder for a model.

    Raises
    ------
    InputError
        If something else than a model is at `path`, or a model with other files
        beside it.
    """
    folder = path.resolve()
    is_empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not is_empty and not _is_model(folder):
        raise InputError(
            f"save: path must be new, an empty folder or a saved model, got "
            f"{str(folder)!r}. Choose another name."
        )


def _is_model(folder: Path) -> bool:
    """Return whether a folder holds a saved model and nothing else."""
    try:
        names = {path.name for path in folder.iterdir()}
        about = json.loads((folder / _JSON).read_text(encoding="utf-8"))
        return names <= _FILES and about["made_by"] == "cqt2img"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load_model(path: Path) -> tuple[FittedModel, dict[str, Any]]:
    """Open a model folder and run its self-test.

    Parameters
    ----------
    path : Path
        Folder written by `save_model`, also of format 1.

    Returns
    -------
    model : FittedModel
        The model, on the CPU.
    params : dict
        Arguments of `Classifier`, as JSON has them.

    Raises
    ------
    InputError
        If the folder is no model, is damaged, or the network does not return the
        numbers that it returned when it was saved.
    """
    for name in (_JSON, _WEIGHTS, _SELFTEST):
        if not (path / name).is_file():
            raise InputError(
                f"load: not a model saved by cqt2img: {str(path)!r} has no {name}. "
                "Check the path."
            )
    about, spec = _read_json(path)
    if spec.key != about.get("spec_key"):
        raise InputError(
            f"load: {str(path)!r} needs tiles of spec {about.get('spec_key')}, which "
            "this version cannot render. Use the versions it was made with: "
            f"{about.get('versions')}."
        )
    if _digest(path / _WEIGHTS) != about.get("weights_sha256"):
        raise InputError(
            f"load: {str(path)!r} is damaged: {_WEIGHTS} has changed. Copy it again."
        )
    references = _load_references(path, about)
    network = _load_network(path, about, spec)
    model = FittedModel(
        network=network,
        backbone=about["architecture"]["backbone"],
        in_chans=about["architecture"]["in_chans"],
        spec=spec,
        classes=np.asarray(about["classes"]),
        temperature=about["temperature"],
        references=references,
        open_set=OpenSetDetector(**about.get("open_set", {})),
        provenance=_provenance(about),
    )
    return model, about["params"]


def _read_json(folder: Path) -> tuple[dict[str, Any], TileSpec]:
    """Read `model.json`, convert it to the current format, and check it."""
    try:
        about = json.loads((folder / _JSON).read_text(encoding="utf-8"))
        if about["made_by"] != "cqt2img":
            raise KeyError("made_by")
        if about["format"] == 1:
            about = model_format_1.upgrade_json(about)
        elif about["format"] != _FORMAT:
            raise KeyError("format")
        spec = TileSpec.from_dict(about["spec"])
        _check_json(about)
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise InputError(
            f"load: {str(folder)!r} is not a model of format 1 or {_FORMAT}: {_JSON} "
            f"has missing or invalid entries ({err}). Fit and save the model again."
        ) from err
    return about, spec


def _check_json(about: dict[str, Any]) -> None:
    """Check entries that would lead to wrong predictions without any error."""
    classes = about["classes"]
    kinds = {type(name) for name in classes} if isinstance(classes, list) else set()
    has_one_kind = len(kinds) == 1 and kinds <= {str, int, float, bool}
    if not has_one_kind or len(classes) < 2 or len(set(classes)) != len(classes):
        raise ValueError("classes")
    temperature = about["temperature"]
    is_number = isinstance(temperature, (int, float))
    if not is_number or not 0 < temperature < float("inf"):
        raise ValueError("temperature")
    for name in ("backbone", "in_chans"):
        about["architecture"][name]
    for name in _LISTS:
        if not isinstance(about[name], list):
            raise ValueError(name)
    if not isinstance(about["params"], dict):
        raise ValueError("params")


def _load_network(folder: Path, about: dict[str, Any], spec: TileSpec) -> TileNet:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
    from safetensors.torch import load_file as load_tensors

    architecture = about["architecture"]
    network = build_network(
        architecture["backbone"],
        len(about["classes"]),
        spec,
        None,
        architecture["in_chans"],
    )
    try:
        network.load_state_dict(load_tensors(folder / _WEIGHTS), strict=True)
        test = load_file(folder / _SELFTEST)
        log_proba = _predict_on_cpu(network, test["tiles"])
        error = float(np.abs(log_proba - test["log_proba"]).max())
    except (SafetensorError, RuntimeError, KeyError) as err:
        raise InputError(
            f"load: {str(folder)!r} is damaged: {str(err)[:200]}. Copy it again."
        ) from err
    if not error <= _TOLERANCE:
        raise InputError(
            f"load: {str(folder)!r} fails its self-test: log-probabilities differ by "
            f"{error:.2g}. Use the versions it was made with: {about.get('versions')}."
        )
    return network


def _load_references(folder: Path, about: dict[str, Any]) -> ReferenceSet | None:
    from safetensors.numpy import load_file

    sha256 = about["references_sha256"]
    if sha256 is None:
        return None
    is_old = about["format"] == 1
    name = model_format_1.REFERENCES_FILE if is_old else _REFERENCES
    file = folder / name
    if not file.is_file() or _digest(file) != sha256:
        raise InputError(
            f"load: {str(folder)!r} is damaged: {name} is missing or has changed. "
            "Copy it again."
        )
    tensors = load_file(file)
    if is_old:
        tensors = model_format_1.upgrade_tensors(tensors)
    return ReferenceSet(**tensors)


def _provenance(about: dict[str, Any]) -> TrainingProvenance:
    return TrainingProvenance(
        groups=tuple(str(group) for group in about["training_groups"]),
        fingerprints=tuple(about["fingerprints"]),
        history=tuple(about["history"]),
        skipped=tuple(SkippedRecording(**row) for row in about["skipped"]),
        enrolled=tuple(EnrollmentReport(**row) for row in about["enrolled"]),
    )


def _predict_on_cpu(network: TileNet, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    return tile_log_proba(network, tiles, torch.device("cpu"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
