"""A fitted model as a folder of safetensors and JSON: opens offline, without pickle, without running code."""

import hashlib
import json
import platform
import shutil
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img.errors import InputError
from cqt2img.inference.enrollment import ReferenceSet
from cqt2img.inference.predict import tile_log_proba
from cqt2img.models.factory import TileNet, build_network
from cqt2img.tiles.spec import TileSpec

_FORMAT = 1
_JSON, _WEIGHTS, _SELFTEST = "model.json", "model.safetensors", "selftest.safetensors"
_GALLERY = "gallery.safetensors"  # not in models of before
_LISTS = ("training_groups", "fingerprints", "history", "skipped")
_FACTS = (*_LISTS, "temperature", "params")
_TOLERANCE = 1e-3  # of a log-probability; other CPUs add up in another order


@dataclass(frozen=True)
class SavedModel:
    """What a model folder holds.

    Parameters
    ----------
    network : TileNet
        With its weights, on the CPU.
    spec : TileSpec
        What its tiles look like.
    classes : ndarray, shape (n_classes,)
        The names.
    facts : dict
        Everything else that was saved, as JSON gives it.
    gallery : ReferenceSet or None
        What the model remembers of its recordings; None in a model of before.
    """

    network: TileNet
    spec: TileSpec
    classes: NDArray
    facts: dict[str, Any]
    gallery: ReferenceSet | None


def save_model(
    folder: Path,
    network: TileNet,
    architecture: dict[str, Any],
    spec: TileSpec,
    classes: NDArray,
    facts: dict[str, Any],
    gallery: ReferenceSet | None,
) -> None:
    """Write a model folder, whole or not at all.

    Parameters
    ----------
    folder : Path
        New, or an older model that is to be replaced.
    network : TileNet
        The network.
    architecture : dict
        `backbone` and `in_chans`, as `build_network` takes them.
    spec : TileSpec
        What its tiles look like.
    classes : ndarray, shape (n_classes,)
        The names.
    facts : dict
        What else to keep; must be fit for JSON.
    gallery : ReferenceSet or None
        What the model remembers of its recordings.

    Raises
    ------
    InputError
        If something that is no model lies at the name.
    """
    from safetensors.numpy import save_file
    from safetensors.torch import save_file as save_tensors

    check_model_path(folder)
    folder = folder.resolve()  # a link to a model stays a link
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        network = network.cpu()
        state = {k: v.detach().contiguous() for k, v in network.state_dict().items()}
        save_tensors(state, part / _WEIGHTS)
        rng = np.random.default_rng(0)
        tiles = rng.integers(0, 256, size=(2, *spec.size), dtype=np.uint8)
        log_proba = _run(network, tiles)
        if not np.isfinite(log_proba).all():
            raise InputError(
                "save: the model must give finite numbers, got NaN. Fit it with a lower learning_rate."
            )
        save_file({"tiles": tiles, "log_proba": log_proba}, part / _SELFTEST)
        if gallery is not None:
            save_file(vars(gallery), part / _GALLERY)
            facts = {**facts, "gallery_sha256": _digest(part / _GALLERY)}
        about = {
            "format": _FORMAT,
            "made_by": "cqt2img",
            "architecture": architecture,
            "classes": classes.tolist(),
            "spec_key": spec.key,
            "spec": asdict(spec),
            "weights_sha256": _digest(part / _WEIGHTS),
            "versions": {
                "python": platform.python_version(),
                **{n: version(n) for n in ("cqt2img", "torch", "timm", "librosa")},
            },
            **facts,
        }
        (part / _JSON).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        part.chmod(0o755)
        _replace(folder, part)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace(folder: Path, part: Path) -> None:
    """Put the new folder in the place of the older one, which is deleted only then."""
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


def check_model_path(folder: Path) -> None:
    """Refuse to write a model over something that is none, before any work is done.

    Parameters
    ----------
    folder : Path
        Where a model is to go.

    Raises
    ------
    InputError
        If something that is no model lies at the name, or a model with other files beside it.
    """
    folder = folder.resolve()
    free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not free and not _is_model(folder):
        raise InputError(
            f"save: path must be new or an older model, got {str(folder)!r}. Choose another name."
        )


def _is_model(folder: Path) -> bool:
    """Whether the folder is ours to replace: it holds a model of ours and nothing else."""
    try:
        if {path.name for path in folder.iterdir()} - {
            _JSON,
            _WEIGHTS,
            _SELFTEST,
            _GALLERY,
        }:
            return False
        return (
            json.loads((folder / _JSON).read_text(encoding="utf-8"))["made_by"]
            == "cqt2img"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load_model(folder: Path) -> SavedModel:
    """Open a model folder and run its self-test.

    Parameters
    ----------
    folder : Path
        What `save_model` wrote.

    Returns
    -------
    SavedModel
        What it holds.

    Raises
    ------
    InputError
        If it is no model, is damaged, or does not give the numbers it gave when it was saved.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
    from safetensors.torch import load_file as load_tensors

    missing = [
        name for name in (_JSON, _WEIGHTS, _SELFTEST) if not (folder / name).is_file()
    ]
    if missing:
        raise InputError(
            f"load: path must be a model saved by cqt2img, got {str(folder)!r} without {missing[0]}. Fit and save one."
        )
    try:
        about = json.loads((folder / _JSON).read_text(encoding="utf-8"))
        if about["made_by"] != "cqt2img" or about["format"] != _FORMAT:
            raise KeyError("format")
        spec, classes = TileSpec.from_dict(about["spec"]), np.asarray(about["classes"])
        architecture = {k: about["architecture"][k] for k in ("backbone", "in_chans")}
        _check_facts(about)
    except (ValueError, KeyError, TypeError) as err:
        raise InputError(
            f"load: path must be a model of format {_FORMAT}, got {str(folder)!r} ({err}). Fit and save it again."
        ) from err
    if spec.key != about.get("spec_key"):
        raise InputError(
            f"load: path must be a model whose pictures this version can draw, got {str(folder)!r} of spec "
            f"{about.get('spec_key')}. Use the versions it was made with: {about.get('versions')}."
        )
    if _digest(folder / _WEIGHTS) != about.get("weights_sha256"):
        raise InputError(
            f"load: path must be an undamaged model, got {str(folder)!r} with other weights. Copy it again."
        )
    network = build_network(
        architecture["backbone"], len(classes), spec, None, architecture["in_chans"]
    )
    try:
        network.load_state_dict(load_tensors(folder / _WEIGHTS), strict=True)
        test = load_file(folder / _SELFTEST)
        worst = float(np.abs(_run(network, test["tiles"]) - test["log_proba"]).max())
    except (SafetensorError, RuntimeError, KeyError) as err:
        raise InputError(
            f"load: path must be an undamaged model, got {str(folder)!r}: {str(err)[:200]}. Copy it again."
        ) from err
    gallery = _load_gallery(folder, about)
    if not worst <= _TOLERANCE:
        raise InputError(
            f"load: path must be a model that passes its self-test, got {str(folder)!r}, which is off by {worst:.2g}. "
            f"Use the versions it was made with: {about.get('versions')}."
        )
    return SavedModel(network, spec, classes, about, gallery)


def _load_gallery(folder: Path, about: dict[str, Any]) -> ReferenceSet | None:
    """Read what the model remembers, which one of before does not."""
    from safetensors.numpy import load_file

    if "gallery_sha256" not in about:
        return None
    if (
        not (folder / _GALLERY).is_file()
        or _digest(folder / _GALLERY) != about["gallery_sha256"]
    ):
        raise InputError(
            f"load: path must be an undamaged model, got {str(folder)!r} with another gallery. Copy it again."
        )
    return ReferenceSet(**load_file(folder / _GALLERY))


def _check_facts(about: dict[str, Any]) -> None:
    """Refuse facts that somebody changed to something that would give wrong answers."""
    classes, temperature = about["classes"], about["temperature"]
    kinds = {type(name) for name in classes} if isinstance(classes, list) else set()
    if (
        len(kinds) != 1
        or kinds - {str, int, float, bool}
        or len(set(classes)) != len(classes)
        or len(classes) < 2
    ):
        raise ValueError("classes")
    if not isinstance(temperature, (int, float)) or not 0 < temperature < float("inf"):
        raise ValueError("temperature")
    for name in _FACTS:
        if name not in about:
            raise KeyError(name)
        if name in _LISTS and not isinstance(about[name], list):
            raise ValueError(name)


def _run(network: TileNet, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    return tile_log_proba(network, tiles, torch.device("cpu"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
