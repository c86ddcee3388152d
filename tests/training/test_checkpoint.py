import numpy as np
import pytest
import torch

from cqt2img.errors import InputError
from cqt2img.models.factory import TileNet
from cqt2img.training import checkpoint as checkpoint_module
from cqt2img.training.callbacks import default_callbacks
from cqt2img.training.checkpoint import BEST, LAST, describe_settings
from tests.conftest import raises_with
from tests.training.conftest import (
    Interrupter,
    Recorder,
    fit,
    is_same,
    make_data,
    make_settings,
)

ALL = {
    "ema_decay": 0.9,
    "mixup": 0.2,
    "head_first": True,
    "augment": "album",
    "balance": "group",
    "accumulation_steps": 2,
}


def interrupt(tile_arrays, folder, n_steps=6, **changes):
    """Train the first of three epochs of four steps, and stop in the second."""
    options = {"epochs": 3, "batch_size": 4, **changes}
    with pytest.raises(KeyboardInterrupt):
        fit(
            tile_arrays,
            callback=Interrupter(n_steps),
            checkpoint=folder,
            resume=True,
            **options,
        )


@pytest.fixture(scope="module")
def finished(tile_arrays, tmp_path_factory):
    """The result and the checkpoint folder of a run; read it, do not change it."""
    folder = tmp_path_factory.mktemp("checkpoint") / "new"
    result = fit(tile_arrays, checkpoint=folder, resume=True)[1]
    return result, folder


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("test_resnet", {}),
        ("test_resnet", ALL),
        ("test_vit", {"layer_decay": 0.7, "augment": "album", "dropout": 0.5}),
    ],
    ids=["resnet", "resnet, all settings", "vit with dropout"],
)
def test_a_run_interrupted_anywhere_is_resumed_to_the_bit(
    tile_arrays, tmp_path, monkeypatch, name, changes
):
    options = {"name": name, "epochs": 3, "batch_size": 4, **changes}
    expected = fit(tile_arrays, **options)[1]
    # a checkpoint after every step
    monkeypatch.setattr(checkpoint_module, "_INTERVAL_SECONDS", 0.0)
    for n_steps in (1, 3, 2):
        interrupt(tile_arrays, tmp_path, n_steps, **options)
    recorder = Recorder()
    resumed = fit(
        tile_arrays, callback=recorder, checkpoint=tmp_path, resume=True, **options
    )[1]
    assert recorder.begun[2] > 0, "it was resumed"
    assert is_same(resumed, expected)


def test_resuming_nothing_starts_and_resuming_the_end_takes_no_step(
    tile_arrays, finished
):
    first, folder = finished
    assert len(first.history) == 2
    recorder = Recorder()
    again = fit(tile_arrays, callback=recorder, checkpoint=folder, resume=True)[1]
    assert is_same(first, again)
    assert recorder.losses == []
    assert sorted(path.name for path in folder.iterdir()) == [BEST, LAST]


def test_without_resume_training_starts_again(tile_arrays, tmp_path):
    fit(tile_arrays, checkpoint=tmp_path, epochs=1)
    recorder = Recorder()
    fit(tile_arrays, callback=recorder, checkpoint=tmp_path, epochs=1)
    assert recorder.begun[2] == 0


def test_a_run_without_validation_recordings_is_resumed(tile_arrays, tmp_path):
    data = make_data(tile_arrays, np.arange(12), np.arange(0))
    options = {"data": data, "epochs": 2}
    expected = fit(tile_arrays, **options)[1]
    with pytest.raises(KeyboardInterrupt):
        fit(tile_arrays, callback=Interrupter(4), checkpoint=tmp_path, **options)
    resumed = fit(tile_arrays, checkpoint=tmp_path, resume=True, **options)[1]
    assert is_same(resumed, expected)


def test_the_best_weights_have_a_file_of_their_own(finished):
    from safetensors.torch import load_file

    result, folder = finished
    best = load_file(folder / BEST)
    assert all(torch.equal(value, best[name]) for name, value in result.state.items())


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        ({"learning_rate": 1e-4}, ["learning_rate=0.003"]),
        ({"mixup": 0.5}, ["mixup=0.0"]),
        ({"seed": 1, "epochs": 3}, ["epochs=2", "random_state=0"]),
        ({"name": "test_vit"}, ["another backbone or other weights"]),
        ({"training": np.arange(7)}, ["other recordings"]),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_run_names_the_difference(
    tile_arrays, finished, changes, differences
):
    _, folder = finished
    if "training" in changes:
        changes = {"data": make_data(tile_arrays, changes["training"])}
    with raises_with(InputError, "fit: checkpoint", repr(str(folder)), *differences):
        fit(tile_arrays, checkpoint=folder, resume=True, **changes)


def test_settings_that_change_no_result_may_change(tile_arrays, finished, tmp_path):
    result, folder = finished
    again = fit(
        tile_arrays,
        checkpoint=folder,
        resume=True,
        num_workers=1,
        accumulation_steps=2,
        cache_dir=tmp_path,
        validation_fraction=0.5,
    )[1]
    assert is_same(result, again)


def test_a_resumed_run_may_split_its_batches_further(
    tile_arrays, tmp_path, monkeypatch
):
    interrupt(tile_arrays, tmp_path)
    sizes = set()
    forward = TileNet.forward

    def spy(network, levels):
        if network.training:
            sizes.add(len(levels))
        return forward(network, levels)

    monkeypatch.setattr(TileNet, "forward", spy)
    options = {"epochs": 3, "batch_size": 4, "accumulation_steps": 2}
    fit(tile_arrays, checkpoint=tmp_path, resume=True, **options)
    assert sizes == {2}


@pytest.mark.parametrize("text", ["", "epoch;loss\n1;2\n", "\ufeffepoch\n1.0\n"])
def test_a_resumed_run_does_not_read_the_csv_file(tile_arrays, tmp_path, text):
    interrupt(tile_arrays, tmp_path)
    (tmp_path / "history.csv").write_text(text, encoding="utf-8")
    with default_callbacks(False, tmp_path) as callback:
        fit(
            tile_arrays,
            checkpoint=tmp_path,
            resume=True,
            epochs=3,
            batch_size=4,
            callback=callback,
        )
    lines = (tmp_path / "history.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3"]


def test_a_damaged_checkpoint_is_an_error(tile_arrays, finished, tmp_path):
    data = (finished[1] / LAST).read_bytes()
    for damaged in (
        data[:1000],
        b"",
        b"hello" * 100,
        data[:5000] + bytes(5000) + data[10_000:],
    ):
        (tmp_path / LAST).write_bytes(damaged)
        with raises_with(InputError, "fit: checkpoint", LAST, "damaged", "Remove it"):
            fit(tile_arrays, checkpoint=tmp_path, resume=True)


def test_a_checkpoint_without_its_parts_is_damaged(tile_arrays, finished, tmp_path):
    values = torch.load(finished[1] / LAST, weights_only=True)
    for name in ("network", "optimizer", "average", "progress"):
        parts = {key: value for key, value in values.items() if key != name}
        torch.save(parts, tmp_path / LAST)
        with raises_with(InputError, "damaged", name):
            fit(tile_arrays, checkpoint=tmp_path, resume=True)
    torch.save([1, 2], tmp_path / LAST)
    with raises_with(InputError, "damaged"):
        fit(tile_arrays, checkpoint=tmp_path, resume=True)


def test_a_checkpoint_of_an_older_version_is_an_error(tile_arrays, tmp_path):
    older = {"key": "0" * 64, "recipe": {"ema": 0.0, "epochs": 2}, "best": None}
    torch.save({**older, "network": {}, "step": 0}, tmp_path / LAST)
    with raises_with(InputError, "fit: checkpoint", LAST, "another version"):
        fit(tile_arrays, checkpoint=tmp_path, resume=True)


def test_resuming_needs_a_folder(tile_arrays):
    with raises_with(InputError, "fit", "resume", "checkpoint=None"):
        fit(tile_arrays, resume=True)


def shift(image):
    return {"image": image}


class Shift:
    """A callable object, as a user may write one."""

    def __call__(self, image):
        return {"image": image}


def test_settings_are_described_alike_in_every_process():
    import albumentations

    transform = albumentations.Compose([albumentations.HorizontalFlip(p=0.25)])
    texts = [
        describe_settings(make_settings(augment=augment))["augment"]
        for augment in ("none", shift, Shift(), transform)
    ]
    assert texts[0] == "none"
    assert texts[1] == f"{__name__}.shift"
    assert texts[2] == f"{__name__}.Shift"
    assert "HorizontalFlip" in texts[3]
    assert not any(" at 0x" in text for text in texts)
