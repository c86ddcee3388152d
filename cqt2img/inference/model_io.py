"""A fitted model as a folder of safetensors and JSON.

Such a folder opens offline, without pickle and without running code.
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

from cqt2img._utils.array_types import Float32Array, Tiles
from cqt2img._utils.hashing import hash_file
from cqt2img.errors import InputError
from cqt2img.inference import model_format_1
from cqt2img.inference.model import FittedModel
from cqt2img.inference.model_format_1 import JsonObject
from cqt2img.inference.model_json import (
    FORMAT,
    ModelJson,
    describe_model,
    is_model_json,
    parse_model_json,
    read_provenance,
)
from cqt2img.inference.open_set import OpenSetDetector
from cqt2img.inference.predict import tile_log_proba
from cqt2img.inference.references import ReferenceSet
from cqt2img.models.factory import TileNet, build_network
from cqt2img.tiles.spec import TileSpec

_JSON = "model.json"
_WEIGHTS = "model.safetensors"
_SELFTEST = "selftest.safetensors"
_REFERENCES = "references.safetensors"  # absent if the model has no references
_FILES = {_JSON, _WEIGHTS, _SELFTEST, _REFERENCES, model_format_1.REFERENCES_FILE}
# Of a log-probability; other processors add up in another order.
_TOLERANCE = 1e-3


def save_model(path: Path, model: FittedModel, params: JsonObject) -> None:
    """Write a model folder, whole or not at all.

    Parameters
    ----------
    path : Path
        New, or a saved model, which is replaced.
    model : FittedModel
        The model.
    params : dict
        Arguments of `Classifier`; must be convertible to JSON.

    Raises
    ------
    InputError
        If something else than a model is at `path`, or the network returns NaN or
        infinity.
    """
    check_model_path(path)
    folder = path.resolve()  # a link to a model stays a link
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        _write_weights(part / _WEIGHTS, model.network)
        _write_selftest(part / _SELFTEST, model)
        references_sha256 = None
        if model.references is not None:
            _write_references(part / _REFERENCES, model.references)
            references_sha256 = hash_file(part / _REFERENCES)
        about = describe_model(
            model,
            params,
            weights_sha256=hash_file(part / _WEIGHTS),
            references_sha256=references_sha256,
        )
        text = json.dumps(about, indent=1) + "\n"
        (part / _JSON).write_text(text, encoding="utf-8")
        part.chmod(0o755)
        _replace_folder(folder, part)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_weights(file: Path, network: TileNet) -> None:
    from safetensors.torch import save_file

    state = network.state_dict()
    save_file({name: value.cpu().contiguous() for name, value in state.items()}, file)


def _write_selftest(file: Path, model: FittedModel) -> None:
    """Write two random tiles and what the network returns for them."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, size=(2, *model.spec.size), dtype=np.uint8)
    device = model.network.table.device
    try:
        log_proba = _predict_on_cpu(model.network, tiles)
    finally:
        model.network.to(device)
    if not np.isfinite(log_proba).all():
        raise InputError(
            "save: the model returns NaN or infinity. Fit it with a lower "
            "learning_rate."
        )
    save_file({"tiles": tiles, "log_proba": log_proba}, file)


def _write_references(file: Path, references: ReferenceSet) -> None:
    from safetensors.numpy import save_file

    save_file(vars(references), file)


def _replace_folder(folder: Path, part: Path) -> None:
    """Move the new folder to its name; the older one is deleted only then."""
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
            "save: path must be new, an empty folder or a saved model, got "
            f"{str(folder)!r}. Choose another name."
        )


def _is_model(folder: Path) -> bool:
    """Return whether a folder holds a saved model and nothing else."""
    try:
        names = {path.name for path in folder.iterdir()}
        text = (folder / _JSON).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return names <= _FILES and is_model_json(text)


def load_model(
    path: Path, backbone: torch.nn.Module | None = None
) -> tuple[FittedModel, JsonObject]:
    """Open a model folder and run its self-test.

    Parameters
    ----------
    path : Path
        Folder written by `save_model`, also one of format 1.
    backbone : Module, optional
        The module that was the backbone, if it was a module of your own: a saved
        model contains its weights, but no code. Its own weights do not matter.

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
        numbers that it returned when it was saved; if `backbone` is missing, or is
        given for a backbone that has a name.
    """
    about = _read_json(path)
    _check_backbone(path, about, backbone)
    spec = TileSpec.from_dict(about["spec"])
    if spec.key != about["spec_key"]:
        raise InputError(
            f"load: {str(path)!r} needs tiles of spec {about['spec_key']}, which "
            f"this version cannot render. {_versions_hint(about)}"
        )
    _check_digest(path / _WEIGHTS, about["weights_sha256"])
    model = FittedModel(
        network=_load_network(path, about, spec, backbone),
        backbone=about["architecture"]["backbone"],
        in_chans=about["architecture"]["in_chans"],
        spec=spec,
        classes=np.asarray(about["classes"]),
        temperature=about["temperature"],
        references=_load_references(path, about),
        open_set=OpenSetDetector(**about["open_set"]),
        provenance=read_provenance(about),
    )
    return model, about["params"]


def _read_json(folder: Path) -> ModelJson:
    for name in (_JSON, _WEIGHTS, _SELFTEST):
        if not (folder / name).is_file():
            raise InputError(
                f"load: not a model saved by cqt2img: {str(folder)!r} has no {name}. "
                "Check the path."
            )
    try:
        return parse_model_json((folder / _JSON).read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise InputError(
            f"load: not a model of format 1 or {FORMAT}: {str(folder)!r} has a "
            f"{_JSON} with a missing or invalid entry ({err}). Fit and save it again."
        ) from err


def _check_digest(file: Path, sha256: str) -> None:
    if not file.is_file() or hash_file(file) != sha256:
        raise InputError(
            f"load: {str(file.parent)!r} is damaged: {file.name} is missing or has "
            "changed. Copy the folder again."
        )


def _check_backbone(
    folder: Path, about: ModelJson, backbone: torch.nn.Module | None
) -> None:
    name = about["architecture"]["backbone"]
    is_custom = about["architecture"]["is_custom"]
    if is_custom and backbone is None:
        raise InputError(
            f"load: {str(folder)!r} has a backbone of your own, {name!r}, whose code "
            "is not saved. Pass the module: load(path, backbone=module)."
        )
    if backbone is not None and not is_custom:
        raise InputError(
            f"load: {str(folder)!r} has the backbone {name!r}, which needs no module. "
            "Leave backbone= out."
        )


def _load_network(
    folder: Path, about: ModelJson, spec: TileSpec, backbone: torch.nn.Module | None
) -> TileNet:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
    from safetensors.torch import load_file as load_tensors

    network = _build_network(folder, about, spec, backbone)
    try:
        network.load_state_dict(load_tensors(folder / _WEIGHTS), strict=True)
        test = load_file(folder / _SELFTEST)
        difference = _predict_on_cpu(network, test["tiles"]) - test["log_proba"]
    except (SafetensorError, RuntimeError, KeyError) as err:
        raise InputError(
            f"load: {str(folder)!r} is damaged: {str(err)[:200]}. Copy it again."
        ) from err
    largest = float(np.abs(difference).max())
    if not largest <= _TOLERANCE:
        raise InputError(
            f"load: {str(folder)!r} fails its self-test: log-probabilities differ by "
            f"{largest:.2g}. {_versions_hint(about)}"
        )
    return network


def _build_network(
    folder: Path, about: ModelJson, spec: TileSpec, backbone: torch.nn.Module | None
) -> TileNet:
    name = about["architecture"]["backbone"]
    in_chans = about["architecture"]["in_chans"]
    n_classes = len(about["classes"])
    try:
        return build_network(backbone or name, n_classes, spec, None, in_chans)
    except InputError as err:
        raise InputError(
            f"load: {str(folder)!r} needs the backbone {name!r}, which cannot be "
            f"built here ({err}) {_versions_hint(about)}"
        ) from err


def _load_references(folder: Path, about: ModelJson) -> ReferenceSet | None:
    from safetensors.numpy import load_file

    sha256 = about["references_sha256"]
    if sha256 is None:
        return None
    if about["format"] == 1:
        file = folder / model_format_1.REFERENCES_FILE
        _check_digest(file, sha256)
        return ReferenceSet(**model_format_1.upgrade_tensors(load_file(file)))
    file = folder / _REFERENCES
    _check_digest(file, sha256)
    return ReferenceSet(**load_file(file))


def _versions_hint(about: ModelJson) -> str:
    versions = [f"{name} {number}" for name, number in about["versions"].items()]
    return f"Use the versions that it was saved with: {', '.join(versions)}."


def _predict_on_cpu(network: TileNet, tiles: Tiles) -> Float32Array:
    return tile_log_proba(network.cpu(), tiles, torch.device("cpu"))
