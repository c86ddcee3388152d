"""The command line: what commands write and print, and their exit codes.

Commands are called in this process, except where a test is about the process.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest
import soundfile

import cqt2img
from cqt2img.classifier import load
from cqt2img.cli.main import INTERRUPTED, SOME_FAILED, main
from cqt2img.cli.options import SETTINGS
from cqt2img.data.recordings import list_recordings
from cqt2img.data.tile_folder import open_tiles
from cqt2img.evaluation.report import TABLE_WRITERS
from cqt2img.training.callbacks import CallbackList
from cqt2img.training.config import TrainingConfig
from tests.conftest import RATE, make_wave

ERROR = 1
WRONG_USAGE = 2
COMMANDS = [
    "render",
    "fit",
    "predict",
    "enroll",
    "evaluate",
    "audit",
    "backbones",
    "demo",
]
HEAVY = ["torch", "timm", "sklearn", "librosa", "pandas", "matplotlib", "scipy"]
NETWORK = ["--backbone", "test_resnet", "--weights", "none", "--device", "cpu", "-q"]
FIT = [*NETWORK, "--epochs", "1", "--augment", "none"]
PROBE = [*NETWORK, "--finetune", "head"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the command line: exit code, stdout and stderr."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["cqt2img", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def fails(run):
    """Expect exit code 1 and one line on stderr that starts with a text."""

    def call(start, *words):
        code, out, err = run(*words)
        assert (code, out) == (ERROR, "")
        assert err.startswith(f"cqt2img: {start}")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err

    return call


def run_process(*words, **options):
    """Call the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


@pytest.fixture
def spec_file(small, tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(small.to_json())
    return path


@pytest.fixture
def clips(tmp_path):
    """Two clips that can be read, and a silent one between them."""
    root = tmp_path / "clips"
    root.mkdir()
    soundfile.write(root / "a.wav", make_wave(40, 2.5), RATE)
    soundfile.write(root / "b.wav", np.zeros(RATE, np.float32), RATE)
    soundfile.write(root / "c.wav", make_wave(76, 2.5), RATE)
    return root


# help and usage


def test_the_help_lists_all_commands(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for command in COMMANDS:
        assert f" {command} " in out
    assert "Exit codes: 0 success, 1 error, 2 wrong usage, 3 some" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run, command):
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert f" {command} " in out


def test_the_help_of_fit_lists_the_settings_of_the_config(run):
    _, out, _ = run("fit", "--help")
    text = " ".join(out.split())
    assert f"Settings for --config and --param: {SETTINGS}." in text


def test_help_does_not_import_heavy_packages():
    done = run_process("-X", "importtime", "-m", "cqt2img", "fit", "--help")
    assert done.returncode == 0
    assert "--learning-rate" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & set(HEAVY)


def test_the_version_is_printed(run):
    assert run("--version") == (0, f"cqt2img {version('cqt2img')}\n", "")


@pytest.mark.parametrize(
    "words",
    [
        ["render"],
        ["fit", "x"],
        ["predict", "x"],
        ["nothing"],
        ["render", "x", "--fast"],
        ["fit", "x", "-o", "y", "--seed", "-1"],
        ["fit", "x", "-o", "y", "--epochs", "0"],
        ["fit", "x", "-o", "y", "--finetune", "tail"],
        ["predict", "x", "-m", "y", "--top-k", "0"],
    ],
)
def test_wrong_usage(run, words):
    code, out, err = run(*words)
    assert (code, out) == (WRONG_USAGE, "")
    assert "Usage" in err
    assert "Traceback" not in err


# errors


def test_an_error_of_the_program_is_one_line(tmp_path):
    path = tmp_path / "gone"
    words = ["-m", "cqt2img", "render", path, "-o", tmp_path / "tiles"]
    done = run_process(*words)
    message = f"cqt2img: render: no such file or folder: {str(path)!r}. "
    assert (done.returncode, done.stdout) == (ERROR, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("fit: no such file or folder: 'gone'", []),
        ("fit: --learning-rate must be", ["--learning-rate", "0"]),
        ("--config or --param: mixup must be", ["-p", "mixup=-1"]),
        ("--config or --param: unknown setting 'mixop'", ["-p", "mixop=1"]),
        ("--param 'mixup': write NAME=VALUE", ["-p", "mixup"]),
        ("--config 'gone.json': cannot be read", ["--config", "gone.json"]),
        ("fit: --resume needs a folder", ["--resume"]),
        ("--jobs 0: ", ["-j", "0"]),
        ("fit: no such file or folder: 'gone'", ["--labels", "gone.csv"]),
    ],
)
def test_errors_of_fit_name_the_option(fails, monkeypatch, tmp_path, start, words):
    monkeypatch.chdir(tmp_path)
    fails(start, "fit", "gone", "-o", "model", *words)


def test_errors_of_csv_files_name_the_option(fails, clips, saved, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("path\nclips/a.wav\n")
    words = ["fit", table, "-o", tmp_path / "model"]
    assert "'tour'" in fails("fit: --group-by must", *words, "--group-by", "tour")
    words = ["evaluate", clips, "-m", saved, "--labels", table]
    assert "'label'" in fails("evaluate: no column", *words)
    words = ["evaluate", clips, "-m", saved]
    assert "--labels" in fails("evaluate: the labels must", *words)


def test_errors_of_specs_weights_and_devices_name_the_option(fails, clips, tile_folder):
    words = ["render", clips, "-o", tile_folder, "--preset", "fast"]
    assert str(tile_folder) in fails("render: --out must", *words)
    words = ["fit", tile_folder, "-o", "x/model", *FIT, "--device", "gpu"]
    fails("--device 'gpu' is not available", *words)
    words = ["fit", tile_folder, "-o", "x/model", *FIT, "--weights", "resnet"]
    fails("fit: --weights 'resnet' ", *words)


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_folder_that_is_no_model(fails, tmp_path, command):
    err = fails("--model: not a model", command, "gone", "-m", tmp_path)
    assert repr(str(tmp_path)) in err
    assert "model.json" in err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--out", ["fit", "gone", "-o", "{}/model"]),
        ("--out", ["predict", "gone", "-m", "gone", "-o", "{}/a.csv"]),
        ("--tiles", ["predict", "gone", "-m", "gone", "--tiles", "{}/a.csv"]),
        ("--audacity", ["predict", "gone", "-m", "gone", "--audacity", "{}"]),
        ("--out", ["enroll", "Monk", "gone", "-m", "gone", "-o", "{}/model"]),
        ("--out", ["evaluate", "gone", "-m", "gone", "-o", "{}"]),
        ("--out", ["audit", "gone", "-o", "{}"]),
    ],
)
def test_outputs_are_checked_first(fails, tmp_path, option, words):
    file = tmp_path / "file"
    file.touch()
    fails(f"{option}: {str(file)!r} ", *(word.format(file) for word in words))


def test_a_full_disk_is_one_line(fails, monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device", "answers.csv")

    monkeypatch.setattr("cqt2img.data.render.render", fail)
    err = fails("", "render", tmp_path, "-o", tmp_path / "tiles")
    assert "No space left on device" in err
    assert "answers.csv" in err


def test_an_interrupted_prediction(run, monkeypatch, clips, saved):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("cqt2img.classifier.predict_recordings", interrupt)
    code, out, err = run("predict", clips, "-m", saved)
    assert (code, out) == (INTERRUPTED, "")
    assert "Traceback" not in err


# render


def test_tiles_are_rendered(run, folder, spec_file, tmp_path, tile_folder):
    out_folder = tmp_path / "tiles"
    code, out, _ = run("render", folder, "-o", out_folder, "--preset", spec_file)
    made = open_tiles(out_folder)
    expected = open_tiles(tile_folder)
    assert code == 0
    assert out == f"{len(expected.tiles)} tiles of 18 recordings in {out_folder}\n"
    pd.testing.assert_frame_equal(made.recordings, expected.recordings)
    pd.testing.assert_frame_equal(made.tiles, expected.tiles)


def test_recordings_that_cannot_be_rendered_are_named(run, clips, spec_file, tmp_path):
    sources = [clips / "a.wav", clips / "b.wav"]
    words = ["-o", tmp_path / "tiles", "--preset", spec_file, "-q"]
    code, out, err = run("render", *sources, *words)
    assert code == SOME_FAILED
    assert out.endswith(f" tiles of 1 recordings in {tmp_path / 'tiles'}\n")
    reason, summary = err.splitlines()
    assert reason.startswith("silent: ")
    assert str(clips / "b.wav") in reason
    assert summary == "1 of 2 recordings could not be read"


def test_the_tiles_are_not_written_into_a_source(fails, tmp_path):
    (tmp_path / "takes").mkdir()
    for source in (tmp_path, tmp_path / "takes"):
        err = fails(f"--out {str(tmp_path)!r}", "render", source, "-o", tmp_path)
        assert repr(str(source)) in err


# fit


def test_a_model_is_fitted_to_tiles(run, tile_folder, tmp_path, small):
    code, out, err = run("fit", tile_folder, "-o", tmp_path / "model", *FIT)
    validation, summary = out.splitlines()
    assert (code, err) == (0, "")
    assert validation.startswith("validation accuracy ")
    assert validation.endswith(" per recording, at epoch 1")
    assert summary == f"model of 3 classes in {tmp_path / 'model'}"
    model = load(tmp_path / "model")
    assert model.spec_ == small
    assert len(model.history_) == 1
    assert len(model.groups_) == 9


def test_options_and_settings_are_the_arguments_of_the_classifier(
    run, tile_folder, tmp_path
):
    config = tmp_path / "config.toml"
    config.write_text('mixup = 0.3\nbalance = "group"\nin_chans = 1\n')
    options = {
        "--batch-size": 5,
        "--learning-rate": 0.01,
        "--seed": 3,
        "--config": config,
        "--param": "ema_decay=.9",
    }
    words = [word for pair in options.items() for word in pair]
    words += ["-p", "mixup=0.2"]
    code, _, err = run("fit", tile_folder, "-o", tmp_path / "model", *FIT, *words)
    assert (code, err) == (0, "")
    params = load(tmp_path / "model").get_params(deep=False)
    names = ("batch_size", "learning_rate", "random_state")
    assert [params[name] for name in names] == [5, 0.01, 3]
    expected = TrainingConfig(mixup=0.2, balance="group", in_chans=1, ema_decay=0.9)
    assert params["config"] == expected


@pytest.mark.filterwarnings("default")
def test_an_option_without_effect_is_a_warning(run, tile_folder, tmp_path):
    words = [*PROBE, "--epochs", "40"]
    code, _, err = run("fit", tile_folder, "-o", tmp_path / "model", *words)
    assert code == 0
    assert err.startswith("cqt2img: warning: fit: --epochs 40 has no effect: ")
    assert err.count("\n") == 1


def test_groups_are_a_column_of_a_csv_file(run, folder, spec_file, tmp_path):
    frame = list_recordings(folder).to_frame()[["path", "label"]]
    frame["tour"] = [f"tour {n // 3}" for n in range(len(frame))]
    frame.to_csv(tmp_path / "table.csv", index=False)
    words = [*PROBE, "--group-by", "tour", "--preset", spec_file]
    source = tmp_path / "table.csv"
    assert run("fit", source, "-o", tmp_path / "model", *words)[0] == 0
    names = ("High/tour 0", "High/tour 1", "Low/tour 2", "Low/tour 3")
    assert load(tmp_path / "model").groups_[:4] == names


def test_labels_and_validation_have_files_of_their_own(run, tile_folder, tmp_path):
    labels = tmp_path / "labels.csv"
    frame = list_recordings(tile_folder).to_frame()[["path", "label"]]
    frame["label"] = np.where(frame["label"] == "Low", "left hand", "right hand")
    frame.to_csv(labels, index=False)
    for label, midi in (("left hand", 41), ("right hand", 77)):
        path = tmp_path / "others" / label / "a.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, make_wave(midi, seed=7), RATE)
    words = [*PROBE, "--labels", labels, "--validation", tmp_path / "others"]
    assert run("fit", tile_folder, "-o", tmp_path / "model", *words)[0] == 0
    model = load(tmp_path / "model")
    assert model.classes_.tolist() == ["left hand", "right hand"]
    assert model.references_.is_validation.sum() == 2


def test_an_interrupted_fit_is_resumed_to_the_same_model(
    run, tile_folder, tmp_path, monkeypatch
):
    words = ["fit", tile_folder, *FIT, "--epochs", "3"]
    assert run(*words, "-o", tmp_path / "whole")[0] == 0
    epochs = []
    end_epoch = CallbackList.on_epoch_end

    def interrupt_once(self, entry):
        end_epoch(self, entry)
        epochs.append(entry["epoch"])
        if len(epochs) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(CallbackList, "on_epoch_end", interrupt_once)
    words += ["-o", tmp_path / "model", "--checkpoint", tmp_path / "state"]
    code, out, err = run(*words)
    assert (code, out) == (INTERRUPTED, "")
    assert err.startswith("cqt2img: interrupted. Run the same command ")
    assert "--resume" in err
    assert not (tmp_path / "model").exists()
    assert run(*words, "--resume")[0] == 0
    assert epochs == [1, 2, 2, 3]  # the interrupted epoch is repeated, but no other
    resumed = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert resumed == (tmp_path / "whole" / "model.safetensors").read_bytes()
    history = (tmp_path / "state" / "history.csv").read_text()
    assert len(history.splitlines()) == 4


def test_an_interrupted_fit_without_checkpoint(run, tile_folder, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("cqt2img.classifier.fit_model", interrupt)
    code, _, err = run("fit", tile_folder, "-o", tmp_path / "model", *FIT)
    assert code == INTERRUPTED
    assert "--checkpoint" in err
    assert not (tmp_path / "model").exists()


@pytest.fixture
def one_bad(folder, tmp_path):
    """The recordings, one of which is empty."""
    root = shutil.copytree(folder, tmp_path / "one bad")
    (root / "Low" / "album 0" / "take 0.wav").write_bytes(b"")
    return root


def test_an_unreadable_recording_is_skipped_if_wanted(
    run, fails, one_bad, spec_file, tmp_path
):
    words = ["fit", one_bad, "-o", tmp_path / "model", *PROBE, "--preset", spec_file]
    err = fails("fit: SOURCE must hold readable recordings", *words)
    assert str(one_bad / "Low") in err
    assert "--skip-bad" in err
    assert not (tmp_path / "model").exists()
    code, out, _ = run(*words, "--skip-bad")
    assert code == SOME_FAILED
    assert out.endswith(f"model of 3 classes in {tmp_path / 'model'}\n")
    (skipped,) = load(tmp_path / "model").skipped_
    assert skipped.reason == "empty_file"


def test_a_model_does_not_replace_other_files(fails, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    err = fails("--out must be new", "fit", "gone", "-o", tmp_path)
    assert repr(str(tmp_path)) in err


@pytest.mark.parametrize("name", ["", "state"])
def test_the_checkpoint_is_outside_of_the_model(fails, tmp_path, name):
    out = tmp_path / "model"
    words = ["fit", "gone", "-o", out, "--checkpoint", out / name]
    assert repr(str(out)) in fails(f"--checkpoint {str(out / name)!r}", *words)
    assert not out.exists()


# predict


READERS = {
    ".csv": pd.read_csv,
    ".jsonl": lambda path: pd.read_json(path, lines=True),
    ".parquet": pd.read_parquet,
}


@pytest.mark.parametrize("suffix", READERS)
def test_every_clip_has_a_row(run, clips, saved, tmp_path, suffix):
    path = tmp_path / f"answers{suffix}"
    words = ["-m", saved, "-o", path, "--top-k", "2", "-q"]
    code, out, err = run("predict", clips, *words)
    assert (code, out) == (SOME_FAILED, "")
    assert err.splitlines()[-1] == "1 of 3 recordings could not be read"
    found = READERS[suffix](path)
    expected = load(saved).identify(clips, 2)
    assert list(found) == list(expected)
    assert found["path"].tolist() == [str(clips / f"{name}.wav") for name in "abc"]
    assert found["status"].tolist() == ["ok", "error", "ok"]
    assert found["reason"][1] == "silent"
    assert found["label"].dropna().tolist() == expected["label"].dropna().tolist()
    probability = expected["probability"].astype(float)
    np.testing.assert_allclose(found["probability"], probability, atol=1e-6)
    empty = ["label", "probability", "label_2", "probability_2"]
    assert found.loc[1, empty].isna().all()


def test_a_table_is_printed(run, clips, saved):
    """Also of file names that are not UTF-8."""
    (clips / "c.wav").rename(clips / "old\udce9.wav")
    clip = clips / "old\udce9.wav"
    code, out, _ = run("predict", clips / "a.wav", clip, "-m", saved)
    header, *rows = out.splitlines()
    assert code == 0
    assert header.split()[:3] == ["path", "label", "probability"]
    paths = [str(clips / "a.wav"), f"{clips}/old\\udce9.wav"]
    assert [row.split()[0] for row in rows] == paths


def test_tiles_and_label_tracks_are_written(run, clips, saved, tmp_path):
    tracks = tmp_path / "tracks"
    words = ["-o", tmp_path / "a.csv", "--tiles", tmp_path / "t.csv"]
    code, _, _ = run("predict", clips, "-m", saved, *words, "--audacity", tracks)
    assert code == SOME_FAILED
    tiles = pd.read_csv(tmp_path / "t.csv")
    assert tiles["path"].nunique() == 3
    assert len(tiles) > 3
    assert sorted(path.name for path in tracks.iterdir()) == ["a.wav.txt", "c.wav.txt"]
    _, end, _ = (tracks / "a.wav.txt").read_text().splitlines()[-1].split("\t")
    is_first = tiles["path"] == str(clips / "a.wav")
    assert float(end) == tiles.loc[is_first, "end_seconds"].max()


@pytest.mark.parametrize("names", [["gone.flac"], ["a.wav", "gone.wav"]])
def test_a_missing_file_is_a_row(run, clips, saved, tmp_path, names):
    sources = [clips / name for name in names]
    words = ["-m", saved, "-o", tmp_path / "a.csv", "-q"]
    code, _, err = run("predict", *sources, *words)
    assert code == SOME_FAILED
    assert err.startswith("vanished: ")
    table = pd.read_csv(tmp_path / "a.csv")
    assert len(table) == len(names)
    assert table["status"].iloc[-1] == "error"
    assert table["reason"].iloc[-1] == "vanished"


@pytest.mark.parametrize("option", ["--out", "--tiles"])
def test_a_table_does_not_replace_what_is_read(fails, tmp_path, tile_folder, option):
    source = tmp_path / "clips.csv"
    source.write_text("path\na.wav\n")
    manifest = tile_folder / "recordings.csv"
    before = manifest.read_bytes()
    same = tmp_path / "x" / ".." / "clips.csv"
    words = ["predict", "a.wav", source, "-m", "gone"]
    assert "sources" in fails(f"{option} {str(same)!r}", *words, option, same)
    words = ["predict", tile_folder, "-m", "gone"]
    fails(f"{option} {str(manifest)!r}", *words, option, manifest)
    assert source.read_text() == "path\na.wav\n"
    assert manifest.read_bytes() == before


def test_the_files_of_tables(fails, tmp_path):
    table = tmp_path / "a.csv"
    words = ["predict", "x", "-m", "gone"]
    err = fails(f"--tiles {str(table)!r}", *words, "-o", table, "--tiles", table)
    assert "--out" in err
    document = tmp_path / "a.doc"
    err = fails("--out must be a file", *words, "-o", document)
    assert repr(str(document)) in err
    assert ", ".join(TABLE_WRITERS) in err


def test_the_manifest_of_a_tile_folder_is_the_tile_folder(
    run, tile_folder, saved, tmp_path
):
    sources = {"folder": tile_folder, "manifest": tile_folder / "recordings.csv"}
    for name, source in sources.items():
        words = ["-m", saved, "-o", tmp_path / f"{name}.csv"]
        assert run("predict", source, *words)[0] == 0
    expected = (tmp_path / "folder.csv").read_text()
    assert (tmp_path / "manifest.csv").read_text() == expected
    words = ["-o", tmp_path / "model", *PROBE]
    assert run("fit", sources["manifest"], *words)[0] == 0
    assert load(tmp_path / "model").spec_ == open_tiles(tile_folder).spec


def test_the_program_predicts_in_another_folder(clips, saved, tmp_path):
    """With a relative path, and a name that is not ASCII."""
    name = "Björk - live.wav"
    (clips / "a.wav").rename(clips / name)
    words = ["predict", name, "-m", saved, "-o", tmp_path / "answers.jsonl", "-q"]
    env = {**os.environ, "PYTHONWARNINGS": "error::UserWarning"}
    done = run_process("-m", "cqt2img", *words, cwd=clips, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (line,) = (tmp_path / "answers.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert (row["path"], row["status"]) == (name, "ok")
    assert row["label"] in {"High", "Low", "Middle"}


# evaluate


def test_scores_are_printed_and_written(run, tile_folder, saved, tmp_path):
    out_folder = tmp_path / "scores"
    code, out, err = run("evaluate", tile_folder, "-m", saved, "-o", out_folder, "-q")
    scores = load(saved).evaluate(tile_folder)
    assert (code, out, err) == (0, f"{scores}\n", "")
    assert "9 of these groups" in out
    names = {path.name for path in out_folder.iterdir()}
    tables = {"answers.csv", "classes.csv", "confusion.csv", "groups.csv"}
    assert tables | {"confusion.png", "reliability.png"} <= names
    written = json.loads((out_folder / "evaluation.json").read_text())
    assert written == scores.to_dict()


def test_two_models_are_compared(run, tile_folder, saved, tmp_path):
    words = ["-m", saved, "--against", saved, "-q"]
    code, out, err = run("evaluate", tile_folder, *words, "-o", tmp_path / "scores")
    assert (code, err) == (0, "")
    assert f"{saved} against {saved}" in out
    assert "difference +0.000" in out
    assert (tmp_path / "scores" / "comparison.csv").is_file()


def test_the_second_model_is_no_model(fails, saved):
    words = ["evaluate", "gone", "-m", saved, "--against", "nothing"]
    fails("--against: not a model", *words)


def test_labels_and_groups_of_an_evaluation_are_in_a_csv_file(
    run, clips, saved, tmp_path
):
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label,tour\na.wav,Low,1\nb.wav,Low,1\nc.wav,Low,1\n")
    words = ["-m", saved, "--labels", labels, "-q"]
    code, out, _ = run("evaluate", clips, *words)
    assert code == SOME_FAILED
    assert out.startswith("2 recordings in 2 groups, 3 classes; 1 could not be read\n")
    code, out, _ = run("evaluate", clips, *words, "--group-by", "tour")
    assert out.startswith("2 recordings in 1 groups, 3 classes; 1 could not be read\n")


# audit


def test_a_model_and_its_recordings_are_audited(run, one_bad, saved, tmp_path):
    out_folder = tmp_path / "audit"
    code, out, err = run("audit", one_bad, "-m", saved, "-o", out_folder, "-q")
    assert (code, err) == (SOME_FAILED, "")
    assert "1 could not be read" in out
    assert "\n  the model  " in out
    assert out.endswith(f"\nFull report: {out_folder / 'index.html'}\n")
    assert (out_folder / "index.html").is_file()


# backbones


def test_backbones_are_listed(run):
    code, out, _ = run("backbones")
    header, *rows = out.splitlines()
    assert code == 0
    expected = ["backbone", "weights", "parameters", "GMACs", "time", "good", "for"]
    assert header.split() == expected
    table = cqt2img.list_backbones()
    assert [row.split()[0] for row in rows] == table["name"].tolist()
    first = table.iloc[0]
    columns = [first["name"], first["weights"], f"{first['parameters']:.2f}", "M"]
    assert rows[0].split()[:4] == columns
