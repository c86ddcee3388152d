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
from typer.testing import CliRunner

import cqt2img
from cqt2img.classifier import load
from cqt2img.cli import main as cli
from cqt2img.data.recordings import list_recordings
from cqt2img.data.tile_folder import open_tiles
from cqt2img.errors import InputError
from tests.conftest import RATE, make_wave, raises_exactly

FIT = [
    "--backbone",
    "test_resnet",
    "--weights",
    "none",
    "--epochs",
    "1",
    "--augment",
    "none",
    "--device",
    "cpu",
    "-q",
]
COMMANDS = ["render", "fit", "predict", "evaluate", "backbones", "demo"]


def run(*words):
    """Call the command line in this process: exit code, stdout, stderr."""
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def outside(*words, **options):
    """Call the command line as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "cqt2img", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


@pytest.fixture
def main(monkeypatch, capsys):
    """Call `main` as the program does; the last line of defence is in it."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["cqt2img", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def spec_file(small, tmp_path):
    (tmp_path / "spec.json").write_text(small.to_json())
    return tmp_path / "spec.json"


@pytest.fixture
def clips(tmp_path):
    """Two clips that can be read, and one that cannot."""
    root = tmp_path / "clips"
    root.mkdir()
    soundfile.write(root / "a.wav", make_wave(40, 2.5), RATE)
    soundfile.write(root / "b.wav", np.zeros(RATE, np.float32), RATE)
    soundfile.write(root / "c.wav", make_wave(76, 2.5), RATE)
    return root


# help and errors


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f" {command} " in out


def test_help_from_outside():
    done = outside(
        "--help", env={**os.environ, "COLUMNS": "100", "PYTHONWARNINGS": "error"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f" {command} " in done.stdout for command in COMMANDS)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['cqt2img', 'fit', '--help']\n"
        "from cqt2img.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'timm', 'sklearn', 'librosa', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_error_from_outside_is_one_line(tmp_path):
    done = outside("render", tmp_path / "gone", "-o", tmp_path / "tiles")
    path = str(tmp_path / "gone")
    message = (
        f"cqt2img: render: no such file or folder: {path!r}. Check the spelling.\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["fit", "{}/gone", "-o", "{}/model"],
            "cqt2img: fit: no such file or folder: '{}/gone'. Check the spelling.\n",
        ),
        (
            ["predict", "{}/gone", "-m", "{}"],
            "cqt2img: load: path must be a model saved by cqt2img, got '{}' without "
            "model.json. Fit and save one.\n",
        ),
        (
            ["evaluate", "{}/gone", "-m", "{}"],
            "cqt2img: load: path must be a model saved by cqt2img, got '{}' without "
            "model.json. Fit and save one.\n",
        ),
        (
            ["predict", "{}", "-m", "{}", "-o", "{}/answers.doc"],
            "cqt2img: --out must be a file that ends "
            "in .csv, .jsonl, .parquet, got '{}/answers.doc'. Rename it.\n",
        ),
    ],
)
def test_error_is_one_line(main, tmp_path, words, message):
    code, out, err = main(*(word.format(tmp_path) for word in words))
    assert (code, out, err) == (1, "", message.replace("{}", str(tmp_path)))


@pytest.mark.parametrize(
    "words",
    [
        ["render"],
        ["fit", "x"],
        ["predict", "x"],
        ["nothing"],
        ["render", "x", "--fast"],
    ],
)
def test_wrong_words_are_a_usage_error(main, words):
    code, out, err = main(*words)
    assert (code, out) == (2, "")
    assert "Usage" in err
    assert "Traceback" not in err


def test_version():
    code, out, err = run("--version")
    assert (code, out, err) == (0, f"cqt2img {version('cqt2img')}\n", "")


def test_no_processes(main):
    message = "cqt2img: --jobs must be 1 or more, or -1 for every core, got 0. Choose another number.\n"
    assert main("render", "x", "-o", "y", "-j", "0") == (1, "", message)


@pytest.mark.parametrize("words", [["fit", "x", "-o", "y"], ["demo"]])
def test_seed_below_zero(main, words):
    code, _, err = main(*words, "--seed", "-1")
    assert code == 2
    assert "--seed" in err


def test_what_the_system_refuses_is_one_line(main, monkeypatch, tmp_path):
    def full(*words):
        raise OSError(28, "No space left on device", "answers.csv")

    monkeypatch.setattr("cqt2img.data.render.render", full)
    message = "cqt2img: [Errno 28] No space left on device: 'answers.csv'\n"
    assert main("render", tmp_path, "-o", tmp_path / "tiles") == (1, "", message)


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "gone", "-o", "{}/model"],
        ["predict", "gone", "-m", "gone", "-o", "{}/a.csv"],
        ["predict", "gone", "-m", "gone", "--tiles", "{}/a.csv"],
        ["predict", "gone", "-m", "gone", "--audacity", "{}"],
        ["evaluate", "gone", "-m", "gone", "-o", "{}"],
    ],
)
def test_places_are_looked_at_first(main, tmp_path, words):
    file = tmp_path / "file"
    file.touch()
    message = f"{str(file)!r} is not a folder that can be written. Choose another one."
    assert main(*(word.format(file) for word in words)) == (
        1,
        "",
        f"cqt2img: {message}\n",
    )


# render


def test_render_into_its_own_source(main, tmp_path):
    (tmp_path / "takes").mkdir()
    for source in (tmp_path, tmp_path / "takes"):
        message = f"render: out must not hold its own sources, got {str(tmp_path)!r} with {str(source)!r} in it. "
        assert main("render", source, "-o", tmp_path) == (
            1,
            "",
            f"cqt2img: {message}Choose another folder.\n",
        )


def test_render(folder, spec_file, tmp_path, tile_folder):
    code, out, err = run(
        "render", folder, "-o", tmp_path / "tiles", "--preset", spec_file, "-q"
    )
    made, expected = open_tiles(tmp_path / "tiles"), open_tiles(tile_folder)
    assert (code, err) == (0, "")
    assert (
        out == f"{len(expected.tiles)} tiles of 18 recordings in {tmp_path / 'tiles'}\n"
    )
    pd.testing.assert_frame_equal(made.recordings, expected.recordings)
    pd.testing.assert_frame_equal(made.tiles, expected.tiles)


def test_render_names_what_cannot_be_read(clips, spec_file, tmp_path):
    code, out, err = run(
        "render", clips, "-o", tmp_path / "tiles", "--preset", spec_file
    )
    assert code == 3
    assert out.endswith(f" tiles of 2 recordings in {tmp_path / 'tiles'}\n")
    lines = err.splitlines()
    assert lines[0].startswith("silent: ")
    assert "b.wav' is silent" in lines[0]
    assert lines[1:] == ["1 of 3 recordings could not be read"]


def test_render_several_sources(clips, folder, spec_file, tmp_path):
    sources = [clips / "a.wav", clips / "c.wav", folder / "Low" / "album 0"]
    assert (
        run(
            "render",
            *sources,
            "-o",
            tmp_path / "tiles",
            "--preset",
            spec_file,
            "-j",
            "1",
        )[0]
        == 0
    )
    assert len(open_tiles(tmp_path / "tiles").recordings) == 4


def test_render_into_tiles_of_another_spec(main, clips, tile_folder):
    code, _, err = main("render", clips, "-o", tile_folder, "--preset", "fast")
    assert code == 1
    assert err.startswith("cqt2img: render: out must hold tiles of spec ")
    assert err.count("\n") == 1


# fit


def test_fit_a_folder_of_tiles(tile_folder, tmp_path, small):
    code, out, err = run("fit", tile_folder, "-o", tmp_path / "model", *FIT)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].startswith("validation accuracy ")
    assert lines[0].endswith(" per recording, at epoch 1")
    assert lines[1:] == [f"model of 3 classes in {tmp_path / 'model'}"]
    model = load(tmp_path / "model")
    assert model.spec_ == small
    assert len(model.history_) == 1
    assert len(model.groups_) == 9


def test_fit_a_folder_of_recordings_with_options(folder, spec_file, tmp_path):
    words = [
        "--preset",
        spec_file,
        "--batch-size",
        "5",
        "--learning-rate",
        "0.01",
        "--seed",
        "3",
        "--in-chans",
        "1",
    ]
    assert run("fit", folder, "-o", tmp_path / "model", *FIT, *words)[0] == 0
    params = load(tmp_path / "model").get_params()
    given = ("batch_size", "learning_rate", "random_state", "in_chans")
    assert [params[name] for name in given] == [5, 0.01, 3, 1]


def test_fit_with_any_argument_of_classifier(folder, spec_file, tmp_path):
    words = [
        "--preset",
        spec_file,
        "-p",
        "mixup=0.3",
        "--param",
        "balance=group",
        "-p",
        "patience=2",
        "-p",
        "ema=.9",
    ]
    assert run("fit", folder, "-o", tmp_path / "model", *FIT, *words)[0] == 0
    params = load(tmp_path / "model").get_params()
    assert [params[name] for name in ("mixup", "balance", "patience", "ema")] == [
        0.3,
        "group",
        2,
        0.9,
    ]


@pytest.mark.parametrize("pair", ["mixup", "mixture=0.3", "=3"])
def test_arguments_have_names(folder, tmp_path, pair):
    names = ", ".join(cqt2img.Classifier().get_params())
    assert "mixup" in names
    with raises_exactly(
        InputError,
        f"fit: --param must be NAME=VALUE, got {pair!r}. Choose a name of {names}.",
    ):
        run("fit", folder, "-o", tmp_path / "model", *FIT, "-p", pair)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("below", ["", "state"])
def test_the_checkpoint_lies_outside_of_the_model(folder, tmp_path, below):
    out, state = tmp_path / "model", tmp_path / "model" / below
    message = f"fit: --checkpoint must lie outside of the model {str(out)!r}, got {str(state)!r}. Choose another folder."
    with raises_exactly(InputError, message):
        run("fit", folder, "-o", out, *FIT, "--checkpoint", state)
    assert not out.exists()


def test_fit_a_csv_by_a_column(folder, spec_file, tmp_path):
    frame = (
        list_recordings(folder)
        .to_frame()[["path", "label"]]
        .assign(tour=lambda f: [f"tour {n // 6}" for n in range(len(f))])
    )
    frame.to_csv(tmp_path / "table.csv", index=False)
    words = ["--group-by", "tour", "--preset", spec_file]
    assert (
        run("fit", tmp_path / "table.csv", "-o", tmp_path / "model", *FIT, *words)[0]
        == 0
    )
    assert load(tmp_path / "model").groups_.tolist() == [
        "High/tour 0",
        "Low/tour 1",
        "Middle/tour 2",
    ]


def test_fit_with_labels_from_a_csv(tile_folder, tmp_path):
    table = list_recordings(tile_folder).to_frame()
    frame = table[["path"]].assign(
        label=np.where(table["label"] == "Low", "left hand", "right hand")
    )
    frame.to_csv(tmp_path / "labels.csv", index=False)
    assert (
        run(
            "fit",
            tile_folder,
            "-o",
            tmp_path / "model",
            *FIT,
            "--labels",
            tmp_path / "labels.csv",
        )[0]
        == 0
    )
    assert load(tmp_path / "model").classes_.tolist() == ["left hand", "right hand"]


def test_fit_with_recordings_to_validate_on(tile_folder, tmp_path):
    for player, midi in (("Low", 41), ("High", 77)):
        (tmp_path / "others" / player).mkdir(parents=True)
        soundfile.write(
            tmp_path / "others" / player / "a.wav", make_wave(midi, seed=7), RATE
        )
    words = ["--validation", tmp_path / "others"]
    assert run("fit", tile_folder, "-o", tmp_path / "model", *FIT, *words)[0] == 0


def test_fit_that_is_stopped_goes_on(tile_folder, tmp_path, monkeypatch):
    from cqt2img.training import trainer as module

    words = ["fit", tile_folder, *FIT, "--epochs", "3"]
    assert run(*words, "-o", tmp_path / "whole")[0] == 0
    close, entries = module.Trainer._close_epoch, []

    def stop(self, start):
        close(self, start)
        entries.append(self.epoch)
        if len(entries) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module.Trainer, "_close_epoch", stop)
    code, out, err = run(
        *words, "-o", tmp_path / "model", "--checkpoint", tmp_path / "state"
    )
    assert (code, out) == (130, "")
    assert err == "cqt2img: stopped. Run the same command again with --resume.\n"
    assert not (tmp_path / "model").exists()
    assert (
        run(
            *words,
            "-o",
            tmp_path / "model",
            "--checkpoint",
            tmp_path / "state",
            "--resume",
        )[0]
        == 0
    )
    assert entries == [1, 2, 2, 3], "the first epoch was not done again"
    for name in ("model.safetensors",):
        assert (tmp_path / "model" / name).read_bytes() == (
            tmp_path / "whole" / name
        ).read_bytes()
    assert (tmp_path / "state" / "history.csv").read_text().count("\n") == 4


@pytest.fixture
def one_bad(folder, tmp_path):
    root = shutil.copytree(folder, tmp_path / "one bad")
    (root / "Low" / "album 0" / "take 0.wav").write_bytes(b"")
    return root


def test_fit_stops_at_a_bad_recording(main, one_bad, spec_file, tmp_path):
    code, out, err = main(
        "fit", one_bad, "-o", tmp_path / "model", *FIT, "--preset", spec_file
    )
    assert (code, out) == (1, "")
    assert err.startswith(
        "cqt2img: fit: X must hold readable recordings, got one that cannot be read: "
    )
    assert err.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_fit_leaves_a_bad_recording_out(one_bad, spec_file, tmp_path):
    code, out, err = run(
        "fit",
        one_bad,
        "-o",
        tmp_path / "model",
        *FIT,
        "--preset",
        spec_file,
        "--skip-bad",
    )
    assert code == 3
    assert out.endswith(f"model of 3 classes in {tmp_path / 'model'}\n")
    assert err.startswith("left out: ")
    assert "has 0 bytes" in err
    assert [row["reason"] for row in load(tmp_path / "model").skipped_] == [
        "empty_file"
    ]


def test_fit_looks_at_the_name_of_the_model_first(main, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    code, _, err = main("fit", "gone", "-o", tmp_path)
    message = f"cqt2img: save: path must be new or an older model, got {str(tmp_path)!r}. Choose another name.\n"
    assert (code, err) == (1, message)


# predict


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_predict_writes_one_row_per_clip(clips, saved, tmp_path, suffix):
    path = tmp_path / f"answers{suffix}"
    code, out, err = run(
        "predict", clips, "-m", saved, "-o", path, "--top-k", "2", "-q"
    )
    assert (code, out) == (3, "")
    assert err.splitlines()[-1] == "1 of 3 recordings could not be read"
    read = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda p: pd.read_json(p, lines=True),
    }[suffix]
    found, expected = read(path), load(saved).identify(clips, 2)
    assert list(found) == list(expected)
    assert found["path"].tolist() == [str(clips / f"{name}.wav") for name in "abc"]
    assert found["status"].tolist() == ["ok", "error", "ok"]
    assert found["label"].dropna().tolist() == expected["label"].dropna().tolist()
    np.testing.assert_allclose(
        found["probability"], expected["probability"].astype(float), atol=1e-6
    )
    assert (
        found.loc[1, ["label", "probability", "label_2", "probability_2"]].isna().all()
    )
    assert found.loc[1, "reason"] == "silent"


def test_predict_prints_a_table(clips, saved):
    code, out, err = run("predict", clips / "a.wav", clips / "c.wav", "-m", saved)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].split()[:3] == ["path", "label", "probability"]
    assert [line.split()[0] for line in lines[1:]] == [
        str(clips / "a.wav"),
        str(clips / "c.wav"),
    ]


def test_predict_tiles_and_label_tracks(clips, saved, tmp_path):
    words = [
        "-o",
        tmp_path / "a.csv",
        "--tiles",
        tmp_path / "t.csv",
        "--audacity",
        tmp_path / "tracks",
    ]
    assert run("predict", clips, "-m", saved, *words)[0] == 3
    tiles = pd.read_csv(tmp_path / "t.csv")
    assert tiles["path"].nunique() == 3
    assert len(tiles) > 3
    tracks = sorted(path.name for path in (tmp_path / "tracks").iterdir())
    assert tracks == ["a.wav.txt", "c.wav.txt"]
    last = (tmp_path / "tracks" / "a.wav.txt").read_text().splitlines()[-1].split("\t")
    assert (
        float(last[1])
        == tiles.loc[tiles["path"] == str(clips / "a.wav"), "end_seconds"].max()
    )


def test_predict_a_missing_file_among_others(clips, saved, tmp_path):
    code, _, err = run(
        "predict",
        clips / "a.wav",
        clips / "gone.wav",
        "-m",
        saved,
        "-o",
        tmp_path / "a.csv",
    )
    assert code == 3
    assert err.startswith("vanished: ")
    assert pd.read_csv(tmp_path / "a.csv")["status"].tolist() == ["ok", "error"]


def test_predict_one_missing_file(saved, tmp_path):
    code, _, err = run(
        "predict", tmp_path / "gone.flac", "-m", saved, "-o", tmp_path / "a.csv"
    )
    assert code == 3
    assert err.startswith("vanished: ")
    assert pd.read_csv(tmp_path / "a.csv")[["status", "reason"]].values.tolist() == [
        ["error", "vanished"]
    ]


@pytest.mark.parametrize("option", ["-o", "--tiles"])
def test_predict_spares_what_it_reads(main, tmp_path, option):
    source = tmp_path / "clips.csv"
    source.write_text("path\na.wav\n")
    written = tmp_path / "x" / ".." / "clips.csv"
    message = f"predict: a table must spare what is read, got {str(written)!r}, which is a source. Choose another name."
    answer = main("predict", "a.wav", source, "-m", "gone", option, written)
    assert answer == (1, "", f"cqt2img: {message}\n")
    assert source.read_text() == "path\na.wav\n"


@pytest.mark.parametrize("option", ["-o", "--tiles"])
def test_predict_spares_the_manifest_of_tiles(main, tile_folder, option):
    written, before = (
        tile_folder / "recordings.csv",
        (tile_folder / "recordings.csv").read_bytes(),
    )
    rule = "predict: a table must spare what is read"
    message = (
        f"{rule}, got {str(written)!r}, in a folder of tiles. Choose another name."
    )
    assert main("predict", tile_folder, "-m", "gone", option, written) == (
        1,
        "",
        f"cqt2img: {message}\n",
    )
    assert written.read_bytes() == before


def test_predict_two_tables_of_one_name(main, tmp_path):
    path = tmp_path / "a.csv"
    message = f"predict: --out and --tiles must be two files, got {str(path)!r} twice. Rename one."
    assert main("predict", "x", "-m", "gone", "-o", path, "--tiles", path) == (
        1,
        "",
        f"cqt2img: {message}\n",
    )


def test_manifest_stands_for_its_folder(tile_folder, saved, tmp_path):
    for source, name in (
        (tile_folder, "folder.csv"),
        (tile_folder / "recordings.csv", "manifest.csv"),
    ):
        assert run("predict", source, "-m", saved, "-o", tmp_path / name)[0] == 0
    assert (tmp_path / "folder.csv").read_text() == (
        tmp_path / "manifest.csv"
    ).read_text()
    assert (
        run("fit", tile_folder / "recordings.csv", "-o", tmp_path / "model", *FIT)[0]
        == 0
    )
    assert load(tmp_path / "model").spec_ == open_tiles(tile_folder).spec


def test_predict_prints_names_that_are_not_utf8(clips, saved):
    (clips / "a.wav").rename(clips / "old\udce9.wav")
    done = outside(
        "predict",
        clips / "old\udce9.wav",
        "-m",
        saved,
        "-q",
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "old\\udce9.wav" in done.stdout


def test_predict_from_outside(clips, saved, tmp_path):
    """The whole way, from another folder, with a relative name and a name that is not ASCII."""
    (clips / "a.wav").rename(clips / "Björk – live.wav")
    words = [
        "predict",
        "Björk – live.wav",
        "-m",
        saved,
        "-o",
        tmp_path / "answers.jsonl",
        "-q",
    ]
    done = outside(*words, cwd=clips)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (row,) = [
        json.loads(line)
        for line in (tmp_path / "answers.jsonl").read_text().splitlines()
    ]
    assert (row["path"], row["status"]) == ("Björk – live.wav", "ok")
    assert row["label"] in {"High", "Low", "Middle"}


# evaluate


def test_evaluate(tile_folder, saved, tmp_path):
    code, out, err = run(
        "evaluate", tile_folder, "-m", saved, "-o", tmp_path / "scores"
    )
    scores = load(saved).evaluate(tile_folder)
    assert (code, out, err) == (0, f"{scores}\n", "")
    assert "WARNING: 9 of these groups were in training" in out
    tables = {
        "answers.csv",
        "classes.csv",
        "confusion.csv",
        "groups.csv",
        "evaluation.json",
    }
    plots = {
        f"{name}.png"
        for name in ("classes", "confusion", "reliability", "risk-coverage", "seconds")
    }
    assert {path.name for path in (tmp_path / "scores").iterdir()} == tables | plots
    assert (
        json.loads((tmp_path / "scores" / "evaluation.json").read_text())
        == scores.to_dict()
    )
    assert (tmp_path / "scores" / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_against_another_model(tile_folder, saved, tmp_path):
    code, out, err = run(
        "evaluate",
        tile_folder,
        "-m",
        saved,
        "--against",
        saved,
        "-o",
        tmp_path / "scores",
    )
    assert (code, err) == (0, "")
    assert "difference +0.000  (95 % interval" in out
    assert (tmp_path / "scores" / "comparison.csv").is_file()


# audit


def test_audit(folder, tmp_path):
    code, out, err = run("audit", folder, "-o", tmp_path / "audit", "-q")
    assert (code, err) == (0, "")
    assert out.startswith(
        "18 recordings in 9 groups, 3 classes\n\nNothing was found that would make a score"
    )
    assert "\n  groups held out  " in out
    assert (tmp_path / "audit" / "index.html").is_file()
    assert out.rstrip().endswith(
        f"The whole of it is in {tmp_path / 'audit' / 'index.html'}"
    )


def test_audit_of_a_model_and_a_bad_file(folder, saved, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "all")
    (tmp_path / "all" / "High" / "album 0" / "bad.wav").write_text("no sound")
    code, out, _ = run("audit", tmp_path / "all", "-m", saved, "-q")
    assert code == 3
    assert "1 could not be read" in out
    assert "The model was trained on 9 of the 9 groups" in out
    assert "the model  " in out


def test_evaluate_counts_what_cannot_be_read(clips, saved, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\na.wav,Low\nb.wav,Low\nc.wav,High\n")
    code, out, _ = run("evaluate", clips, "-m", saved, "--labels", labels)
    assert code == 3
    assert out.startswith("2 recordings in 2 groups, 3 classes; 1 could not be read\n")


def test_evaluate_by_a_column(clips, saved, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label,tour\na.wav,Low,1\nc.wav,Low,1\n")
    code, out, _ = run(
        "evaluate", clips, "-m", saved, "--labels", labels, "--group-by", "tour"
    )
    assert code == 0
    assert out.startswith("2 recordings in 1 groups, 3 classes\n")


def test_evaluate_without_labels(main, clips, saved):
    code, out, err = main("evaluate", clips, "-m", saved)
    assert (code, out) == (1, "")
    assert err.startswith(
        "cqt2img: evaluate: y must label every recording, got none for 3 of 3, first "
    )
    assert err.count("\n") == 1


# backbones


def test_backbones_are_listed():
    code, out, _ = run("backbones")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == [
        "backbone",
        "weights",
        "parameters",
        "GMACs",
        "time",
        "good",
        "for",
    ]
    assert [line.split()[0] for line in lines[1:]] == cqt2img.list_backbones()[
        "name"
    ].tolist()
    assert lines[1].split()[:6] == ["notes", "own", "0.06", "M", "0.45", "0.3"]
    assert lines[2].split()[:6] == ["resnet18", "imagenet", "11.18", "M", "1.78", "1.0"]
