import copy
import json
import logging
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logsumexp
from sklearn.exceptions import NotFittedError

from cqt2img.classifier import Classifier, load
from cqt2img.data.recordings import list_recordings
from cqt2img.errors import AudioError, InputError
from cqt2img.inference.enrollment import fit_new_row, fit_row, infer_albums
from cqt2img.inference.linear_head import LinearHead, read_head, widen_head
from cqt2img.inference.references import ReferenceSet
from cqt2img.models.factory import build_network
from tests.conftest import make_cqt, make_wave, raises_exactly
from tests.inference.test_open_set import ALBUMS, Y, lines

NEW = [make_cqt(58, 60 + k, seed=99 + k) for k in range(5)]
LATER = [make_cqt(58, 60 + k, seed=199 + k) for k in range(4)]


@pytest.fixture(scope="module")
def _base(options):
    return Classifier(**{**options, "epochs": 6}).fit(lines(), Y, ALBUMS)


@pytest.fixture
def base(_base):
    return copy.deepcopy(_base)


def two_players(seed=0, n=40, n_features=6):
    """Players along two axes, a head that tells them apart, and clips of one along a third."""
    rng = np.random.default_rng(seed)
    centres = 4 * np.eye(n_features)[:3]
    features = (
        centres[np.repeat([0, 1, 2], n)] + rng.standard_normal((3 * n, n_features))
    ).astype(np.float32)
    head = LinearHead(np.eye(n_features)[:2] * 2, np.zeros(2))
    return (
        head,
        ReferenceSet(features[: 2 * n], np.repeat([0, 1], n), np.zeros(2 * n, bool)),
        features[2 * n :],
    )


# the new row


def test_the_row_takes_the_new_and_leaves_the_others():
    head, gallery, clips = two_players()
    wide = head.insert_class(1, *fit_row(head, gallery, clips[:5]))
    np.testing.assert_array_equal(wide.weight[[0, 2]], head.weight)
    assert (wide(clips[5:]).argmax(axis=1) == 1).mean() > 0.9
    before, after = (
        head(gallery.features).argmax(axis=1),
        wide(gallery.features).argmax(axis=1),
    )
    assert (after == np.where(before == 1, 2, 0)).mean() > 0.95


def test_the_row_is_where_no_small_step_lowers_the_loss():
    """The gradient of the balanced log-loss and its ridge vanishes, by finite differences."""
    head, gallery, clips = two_players()
    row, bias = fit_row(head, gallery, clips[:5])
    scale, mean = gallery.features.std(axis=0), gallery.features.mean(axis=0)

    def loss(w, b):
        groups = [gallery.features[gallery.class_indices == c] for c in (0, 1)]
        total = 0.0
        for x, sign in ((groups[0], 1), (groups[1], 1), (clips[:5], -1)):
            margin = (x @ w + b - logsumexp(head(x), axis=1)) * sign
            total += np.logaddexp(0, margin).mean() / 3
        return total + 1e-3 * len(w) / 2 * ((w * scale) ** 2).sum()

    assert np.all(np.isfinite(mean))
    best = loss(row, bias)
    for k in range(len(row)):
        for step in (-0.05, 0.05):
            assert loss(row + step * np.eye(len(row))[k], bias) > best
    assert min(loss(row, bias + 0.05), loss(row, bias - 0.05)) > best


def test_features_of_another_scale_give_the_same_answers():
    head, gallery, clips = two_players()
    stretched = ReferenceSet(
        gallery.features * 1000, gallery.class_indices, gallery.is_validation
    )
    row, bias = fit_row(head, gallery, clips[:5])
    scaled, bias_too = fit_row(
        LinearHead(head.weight / 1000, head.bias), stretched, clips[:5] * 1000
    )
    np.testing.assert_allclose(scaled * 1000, row, atol=1e-2)
    assert bias_too == pytest.approx(bias, abs=1e-2)


def test_clips_left_out_tell_chance_from_skill():
    head, gallery, clips = two_players()
    assert fit_new_row(head, gallery, clips[:5], np.arange(5))[2].mean() == 1
    foreign = (
        gallery.features[[0, 50, 3, 60]] + 0.5
    )  # clips like those of the two others
    assert fit_new_row(head, gallery, foreign, np.arange(4))[2].mean() < 0.5
    assert fit_new_row(head, gallery, clips[:1], np.arange(1))[2] is None


def test_the_bias_makes_up_for_knowing_the_clips_too_well():
    """Few clips in many dimensions: without the held-out recordings the new player is named too seldom."""
    head, gallery, clips = two_players(n_features=300)
    held = ReferenceSet(gallery.features, gallery.class_indices, np.arange(80) % 4 == 0)
    recall = {}
    for name, one in (("fitted", gallery), ("shifted", held)):
        row, bias, _ = fit_new_row(head, one, clips[:3], np.arange(3))
        recall[name] = (clips[3:] @ row + bias > head(clips[3:]).max(axis=1)).mean()
    assert recall["shifted"] > recall["fitted"] + 0.05


def test_albums_are_left_out_whole():
    """Half of the clips of each album sound like that album: once it is out, nothing of it is known."""
    head, gallery, _ = two_players(n_features=12)
    albums = np.repeat([0, 1], 3)
    clips = (
        4 * np.eye(12, dtype=np.float32)[[5, 5, 5, 6, 6, 6]]
        + 4 * np.eye(12, dtype=np.float32)[0]
    )
    clips += 0.1 * np.random.default_rng(0).standard_normal(clips.shape).astype(
        np.float32
    )
    assert fit_new_row(head, gallery, clips, np.arange(6))[2].mean() == 1
    assert fit_new_row(head, gallery, clips, albums)[2].mean() < 0.5
    assert (
        fit_new_row(head, gallery, clips, np.zeros(6))[2].mean() == 1
    )  # one album: clip by clip


@pytest.mark.parametrize(
    "backbone", ["test_resnet", "test_vit", "test_efficientnet", "mobilenetv2_035"]
)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_wider_head_keeps_the_other_logits(small, backbone, place):
    torch.manual_seed(0)
    network = build_network(backbone, 3, small).eval()
    tiles = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (4, *small.size), dtype=np.uint8)
    )
    with torch.inference_mode():
        before, features = network(tiles).numpy(), network.embed(tiles).numpy()
    row = np.random.default_rng(1).standard_normal(features.shape[1])
    draws = torch.get_rng_state()
    network = widen_head(network, place, row, 0.5)
    assert torch.equal(draws, torch.get_rng_state())
    with torch.inference_mode():
        after = network.eval()(tiles).numpy()
    np.testing.assert_allclose(np.delete(after, place, axis=1), before, atol=1e-6)
    np.testing.assert_allclose(after[:, place], features @ row + 0.5, atol=1e-3)
    np.testing.assert_allclose(read_head(network)(features), after, atol=1e-3)


def test_find_albums(tmp_path):
    import soundfile

    for name in ("one/a.wav", "one/b.wav", "two/c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, make_wave(60), 22_050)
    folders = infer_albums(
        list_recordings([str(tmp_path / "one"), str(tmp_path / "two")])
    )
    assert folders.tolist() == [str(tmp_path / "one")] * 2 + [str(tmp_path / "two")]
    assert infer_albums(list_recordings(tmp_path)).tolist() == folders.tolist()
    paths = sorted(map(str, tmp_path.rglob("*.wav")))
    assert infer_albums(list_recordings(paths, groups=["x", "y", None])).tolist() == [
        "x",
        "y",
        str(tmp_path / "two"),
    ]
    table = pd.DataFrame({"path": paths, "album": ["p", "p", "q"]})
    assert infer_albums(list_recordings(table)).tolist() == ["p", "p", "q"]
    assert infer_albums(list_recordings(NEW[:2])).tolist() == ["array 0", "array 1"]


# a player more


def test_the_new_player_is_named_and_the_others_stay(base):
    before = base.predict_proba(lines())
    assert base.enroll("bb", NEW, [1, 1, 2, 2, 2]) is base
    assert base.classes_.tolist() == ["a", "b", "bb", "c", "d"]
    assert base.predict(LATER).tolist() == ["bb"] * 4
    assert (base.predict(lines()) == Y).all()
    after = base.predict_proba(lines())
    others = np.delete(after, 2, axis=1) / (1 - after[:, 2:3])
    np.testing.assert_allclose(
        others, before, atol=1e-3
    )  # among themselves they share as before
    assert base.enrolled_ == [{"name": "bb", "n_clips": 5, "n_albums": 2, "right": 1.0}]
    assert base.identify(LATER)["label"].tolist() == ["bb"] * 4
    assert base.predict_tiles(LATER)["label"].tolist().count("bb") > 4


@pytest.mark.parametrize(
    ("name", "place"), [("A", 0), ("z", 4), ("a longer name than any", 1), ("Ü", 4)]
)
def test_classes_stay_sorted_and_columns_match(base, name, place):
    base.enroll(name, NEW)
    assert base.classes_.tolist() == sorted([*"abcd", name])
    assert (base.predict_proba(LATER).argmax(axis=1) == place).all()


def test_no_longer_unknown(base):
    assert set(base.predict(LATER, unknown=True)) == {"unknown"}
    base.enroll("bb", NEW)
    assert set(base.predict(LATER, unknown=True)) == {"bb"}


def test_two_players_one_after_the_other(base):
    other = [make_cqt(28, 60 + k, seed=70 + k) for k in range(6)]
    base.enroll("y", NEW).enroll("x", other[:4])
    assert base.classes_.tolist() == [*"abcd", "x", "y"]
    assert base.predict([*LATER, *other[4:]]).tolist() == ["y"] * 4 + ["x"] * 2
    assert [one["name"] for one in base.enrolled_] == ["y", "x"]
    assert base.references_.class_indices.tolist()[-9:] == [5] * 5 + [4] * 4


def test_evaluate_knows_what_was_enrolled(base):
    assert base.evaluate(LATER, ["a"] * 4).known_groups == ()
    base.enroll("bb", NEW, [1, 1, 2, 2, 2])
    assert base.evaluate(LATER, ["bb"] * 4, [2, 3, 3, 3]).known_groups == ("2",)
    assert base.evaluate([NEW[0], *LATER], ["bb"] * 5, list("vwxyz")).known_groups == (
        "v",
    )  # by its sound
    assert base.score(LATER, ["bb"] * 4) == 1


def test_the_model_folder_keeps_the_player(base, tmp_path):
    base.enroll("bb", NEW).save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(
        loaded.predict_proba(LATER), base.predict_proba(LATER)
    )
    assert loaded.identify(LATER, unknown=True).equals(
        base.identify(LATER, unknown=True)
    )
    assert loaded.enrolled_ == base.enrolled_
    assert loaded.enroll("e", [make_cqt(28, 60, seed=3)]).classes_.tolist() == [
        "a",
        "b",
        "bb",
        "c",
        "d",
        "e",
    ]


def test_a_second_fit_forgets(base, options):
    base.enroll("bb", NEW).fit(lines(8), Y[:8])
    assert base.enrolled_ == []
    assert base.classes_.tolist() == ["a", "b", "c", "d"]


def test_labels_of_numbers(options):
    model = Classifier(**{**options, "epochs": 6}).fit(
        lines(), [ord(y) for y in Y], ALBUMS
    )
    model.enroll(np.int64(7), NEW)
    assert model.classes_.tolist() == [7, 97, 98, 99, 100]
    assert model.predict(LATER).tolist() == [7] * 4


# what it says


def test_one_album_is_warned_of(base, caplog):
    with caplog.at_level(logging.INFO, "cqt2img"):
        base.enroll("bb", NEW, ["solo"] * 5)
    record = caplog.records[-1]
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        "enroll: 'bb' from 5 clips of 1 album; 100 % were named right when left out, but the model may know the album "
        "by its sound: expect less of others. Give clips of two albums or more"
    )


def test_two_albums_are_not(base, caplog):
    with caplog.at_level(logging.INFO, "cqt2img"):
        base.enroll("bb", NEW, [1, 1, 2, 2, 2])
    record = caplog.records[-1]
    assert (record.levelname, record.getMessage()) == (
        "INFO",
        "enroll: 'bb' from 5 clips of 2 albums; 100 % were named right by a model that had not met their album",
    )


def test_one_clip_cannot_be_checked(base, caplog):
    base.enroll("bb", NEW[:1])
    assert base.enrolled_ == [
        {"name": "bb", "n_clips": 1, "n_albums": 1, "right": None}
    ]
    assert caplog.records[-1].getMessage() == (
        "enroll: 'bb' from 1 clip of 1 album; one clip cannot be checked. Give clips of two albums or more"
    )


# refused, and then nothing has changed


def test_not_fitted(options):
    with pytest.raises(NotFittedError):
        Classifier(**options).enroll("bb", object())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "b",
            "enroll: name must be new, got 'b', which the model knows. Choose another.",
        ),
        ("", "enroll: name must be a name like 'a', got ''. Choose another."),
        (7, "enroll: name must be a name like 'a', got 7. Choose another."),
        (None, "enroll: name must be a name like 'a', got None. Choose another."),
    ],
)
def test_name_cannot_be_added(base, name, message):
    with raises_exactly(InputError, message):
        base.enroll(name, NEW)
    assert base.classes_.tolist() == ["a", "b", "c", "d"]


def test_a_clip_that_training_met(base):
    message = "enroll: X must hold new clips, got 'array 1', which training met. Give other clips."
    with raises_exactly(InputError, message):
        base.enroll("bb", [NEW[0], lines()[5]])


def test_clips_that_cannot_be_read(base, bad_folder):
    path = str(bad_folder / "silent.wav")
    with pytest.raises(AudioError) as caught:
        base.enroll("bb", [path])
    start = f"enroll: X must hold readable recordings, got one that cannot be read: {path!r} ("
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith(") Leave it out, or pass on_error='skip'.")
    base.set_params(on_error="skip")
    message = (
        "enroll: X must hold new clips, got none that can be read. Give other clips."
    )
    with raises_exactly(InputError, message):
        base.enroll("bb", [path])
    assert base.classes_.tolist() == ["a", "b", "c", "d"]
    assert base.enroll("bb", [path, *NEW]).enrolled_[0]["n_clips"] == 5


def test_a_model_that_remembers_nothing(base):
    base.references_ = None
    message = (
        "enroll: the model must remember its recordings and have a linear head, got an older or another one. "
        "Fit and save it again."
    )
    with raises_exactly(InputError, message):
        base.enroll("bb", NEW)


def test_damaged_gallery(base, tmp_path):
    base.save(tmp_path / "model")
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    data = bytearray((tmp_path / "copy" / "references.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "copy" / "references.safetensors").write_bytes(data)
    message = f"load: path must be an undamaged model, got {str(tmp_path / 'copy')!r} with another gallery. Copy it again."
    with raises_exactly(InputError, message):
        load(tmp_path / "copy")
    (tmp_path / "copy" / "references.safetensors").unlink()
    with raises_exactly(InputError, message):
        load(tmp_path / "copy")
    assert json.loads((tmp_path / "model" / "model.json").read_text())["enrolled"] == []


# the command


def test_command(base, tmp_path):
    from typer.testing import CliRunner

    from cqt2img.cli import app

    base.save(tmp_path / "model")
    for n, cqt in enumerate([*NEW, *LATER]):
        (tmp_path / f"album {n % 2}").mkdir(exist_ok=True)
        np.save(tmp_path / f"album {n % 2}" / f"{n}.npy", cqt)
    clips = [str(tmp_path / f"album {n % 2}" / f"{n}.npy") for n in range(5)]
    runner, model, new = CliRunner(), str(tmp_path / "model"), str(tmp_path / "new")
    done = runner.invoke(app, ["enroll", "Monk", *clips, "-m", model, "-o", new, "-q"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-2:] == [
        "enroll: 'Monk' from 5 clips of 2 albums; 100 % were named right by a model that had not met their album.",
        f"model of 5 classes in {new}",
    ]
    later = [str(tmp_path / f"album {n % 2}" / f"{n}.npy") for n in range(5, 9)]
    assert set(load(new).predict(later)) == {"Monk"}
    runner.invoke(
        app,
        [
            "predict",
            *later,
            "-m",
            model,
            "-o",
            str(tmp_path / "out.csv"),
            "--unknown",
            "-q",
        ],
    )
    assert pd.read_csv(tmp_path / "out.csv")["is_unknown"].tolist() == [True] * 4
