"""The demo: the album effect on synthetic players, in three minutes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.progress import progress_bar
from cqt2img.data.recordings import Recordings, list_recordings
from cqt2img.data.render import render
from cqt2img.data.synthetic import make_corpus
from cqt2img.data.tile_arrays import TileArrays, load_tile_arrays
from cqt2img.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from cqt2img.evaluation.evaluation import Evaluation
    from cqt2img.evaluation.page import Section

N_PLAYERS = 5
N_ALBUMS = 6
N_TEST_ALBUMS = 2  # of every player
N_TAKES = 5
SECONDS = 12
BACKBONE = "test_resnet"
LEARNING_RATE = 3e-3
EPOCHS = 20
PAGE = "index.html"
MARKER = "SYNTHETIC.txt"  # a folder of the user may well hold `recordings`


@dataclass(frozen=True)
class DemoScores:
    """Scores of the demo; all count recordings.

    Parameters
    ----------
    random_tiles : Evaluation
        A small network, with tiles of every recording in training and test.
    held_out_albums : Evaluation
        The same network, with whole albums in the test.
    default_classifier : Evaluation
        `Classifier()` on the same albums.
    """

    random_tiles: "Evaluation"
    held_out_albums: "Evaluation"
    default_classifier: "Evaluation"

    def named(self) -> "dict[str, Evaluation]":
        """Return the scores by the names that plots and tables show.

        Returns
        -------
        dict of str to Evaluation
            In the order of the story.
        """
        return {
            "tiles split\nat random": self.random_tiles,
            "albums held out,\nsame network": self.held_out_albums,
            "albums held out,\ncqt2img default": self.default_classifier,
        }


def run_demo(
    out: Path, seed: int, echo: Callable[[str], object], *, progress: bool = True
) -> DemoScores:
    """Make synthetic recordings, train on them in three ways, and write a page.

    Parameters
    ----------
    out : Path
        Folder for recordings, tiles, a model and the page.
    seed : int
        Seed of the recordings and of training.
    echo : callable
        Called with every line of text.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    DemoScores
        The three scores.

    Raises
    ------
    InputError
        If `out` holds something else than an earlier demo.
    """
    from cqt2img.classifier import Classifier
    from cqt2img.evaluation.report import write_table
    from cqt2img.models.notes import NOTES

    start = time.perf_counter()
    _prepare_folder(out)
    echo("All sound is synthetic: invented players, melodies in the public domain.")
    echo(f"1. {N_PLAYERS} players record {N_ALBUMS} albums each, and every album has a")
    echo("   piano, a room and an equaliser of its own.")
    folder = out / "recordings"
    make_corpus(folder, N_PLAYERS, N_ALBUMS, N_TAKES, SECONDS, seed)
    bar = progress_bar if progress else None
    tiles = render(folder, out / "tiles", "fast", progress=bar)
    recordings = list_recordings(tiles)
    is_test = _in_test_albums(recordings)
    arrays, _ = load_tile_arrays(recordings, tiles.spec)

    echo("2. A small network learns from two thirds of all tiles, and is tested on the")
    echo("   other tiles of the same recordings.")
    fraction = N_TEST_ALBUMS / N_ALBUMS
    random_tiles = score_small_network(arrays, recordings, fraction, seed, progress)
    echo(f"   {random_tiles.accuracy:.0%} of the recordings are named right.")
    echo("3. The same network is tested on albums that are not in training.")
    held_out = score_small_network(arrays, recordings, is_test, seed, progress)
    echo(
        f"   {held_out.accuracy:.0%} are named right; chance is {held_out.chance:.0%}."
    )
    echo("4. The default of cqt2img transcribes notes, and classifies what is played.")
    notes = list_recordings(render(folder, out / "notes", NOTES, progress=bar))
    test = notes.select(is_test)
    classifier = Classifier(random_state=seed, verbose=progress)
    classifier.fit(notes.select(~is_test))
    default = classifier.evaluate(test)
    low, high = default.accuracy_interval
    echo(f"   {default.accuracy:.0%} are named right (95 % interval over albums:")
    echo(f"   {low:.0%} to {high:.0%}).")

    classifier.save(out / "model")
    predictions = classifier.identify(test, top_k=2).assign(player=test.labels)
    write_table(predictions, out / "predictions.csv")
    scores = DemoScores(random_tiles, held_out, default)
    _write_page(out, arrays, recordings, scores)
    seconds = time.perf_counter() - start
    echo(f"Done in {seconds:.0f} s. Open {out / PAGE}")
    echo(f"Try: cqt2img predict {test.paths[0]} -m {out / 'model'}")
    return scores


def _prepare_folder(out: Path) -> None:
    """Check that nothing else is overwritten, and mark the folder as a demo."""
    is_free = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if not is_free and not (out / MARKER).is_file():
        raise InputError(
            f"demo: out={str(out)!r} is not an earlier demo. Choose another folder."
        )
    out.mkdir(parents=True, exist_ok=True)
    text = "Everything in this folder is synthetic, made by `cqt2img demo`.\n"
    (out / MARKER).write_text(text, encoding="utf-8")


def _in_test_albums(recordings: Recordings) -> NDArray[np.bool_]:
    """Mark the recordings of the last albums of every player."""
    numbers = [int(group.rsplit("-", 1)[1]) for group in recordings.groups]
    return np.array(numbers) > N_ALBUMS - N_TEST_ALBUMS


def score_small_network(
    arrays: TileArrays,
    recordings: Recordings,
    is_test: NDArray[np.bool_] | float,
    seed: int,
    progress: bool,
) -> "Evaluation":
    """Train a small network on single tiles, and score it on recordings.

    Parameters
    ----------
    arrays : TileArrays
        Tiles of the recordings.
    recordings : Recordings
        The recordings, with labels and groups.
    is_test : ndarray of bool, shape (n_recordings,), or float
        Recordings for the test; or the fraction of all tiles, drawn at random.
    seed : int
        Seed of the initial weights and of training.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Evaluation
        Scores per recording.
    """
    import torch

    from cqt2img.auditing.leakage import score_tiles
    from cqt2img.models.factory import build_network
    from cqt2img.training.callbacks import default_callbacks
    from cqt2img.training.config import TrainingSettings

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        n_classes = len(set(recordings.labels))
        network = build_network(BACKBONE, n_classes, arrays.spec)
    settings = TrainingSettings(
        epochs=EPOCHS, learning_rate=LEARNING_RATE, augment="none", seed=seed
    )
    with default_callbacks(progress) as callback:
        return score_tiles(
            arrays,
            recordings.labels,
            recordings.groups,
            is_test,
            network,
            settings,
            callback=callback,
        )


def _write_page(
    out: Path, arrays: TileArrays, recordings: Recordings, scores: DemoScores
) -> None:
    from cqt2img.evaluation.page import Section, render_page
    from cqt2img.evaluation.plots import plot_confusion, plot_scores

    named = scores.named()
    overview = Section(
        text=(
            "All sound on this page is synthetic. Five invented players perform "
            "melodies in the public domain. Each has a touch, a timing and a left hand "
            "of their own, and records six albums; every album has its own piano, "
            "room, tuning and equaliser. Who is playing?"
        ),
        figure=plot_scores(list(named), list(named.values())),
        caption=(
            "Accuracy per recording; lines are 95 % intervals over albums. The grey "
            "bar is what a first network reports if tiles of one recording are in "
            "training and in the test: it has learned the sound of each album. The "
            "second bar shows what of that holds on albums that are not in training. "
            "The last bar is the default of cqt2img, which transcribes the notes and "
            "classifies intervals, chords, phrases, touch and pace."
        ),
    )
    confusion = Section(
        title="Which players are confused",
        text="Albums held out, one prediction per recording, default of cqt2img:",
        figure=plot_confusion(scores.default_classifier),
    )
    numbers = Section(title="Scores", table=_score_table(named))
    players = list(dict.fromkeys(map(str, recordings.labels)))
    audio = Section(
        title="Listen to the players",
        audio={_title(name): _first_file(recordings, name) for name in players},
    )
    tiles = _tile_section(arrays, recordings, players[:3])
    sections = [overview, tiles, audio, confusion, numbers]
    render_page(out / PAGE, "Who is playing?", sections)


def _tile_section(
    arrays: TileArrays, recordings: Recordings, players: list[str]
) -> "Section":
    """Show one tile of two albums of each player."""
    from cqt2img.evaluation.page import Section
    from cqt2img.tiles.display import plot_tiles

    tiles = []
    titles = []
    for player in players:
        first_of_album: dict[str, int] = {}
        for index, recording in enumerate(recordings):
            if recording.label == player:
                first_of_album.setdefault(recording.group, index)
        for group, index in list(first_of_album.items())[:2]:
            tiles.append(arrays.tiles(index)[0])
            titles.append(f"{_title(player)}, album {group.rsplit('-', 1)[1]}")
    return Section(
        title="The images",
        text=(
            "Time runs to the right, pitch upwards; bright is loud. Each row shows one "
            "player on two albums. What the two have in common is the player. What "
            "differs from left to right is piano, room and equaliser, which are easier "
            "to learn."
        ),
        figure=plot_tiles(np.stack(tiles), arrays.spec, titles, n_columns=2),
    )


def _first_file(recordings: Recordings, player: str) -> Path:
    return Path(recordings.paths[recordings.labels.index(player)])


def _title(label: str) -> str:
    return label.replace("-", " ").title()


def _score_table(named: "dict[str, Evaluation]") -> "pd.DataFrame":
    import pandas as pd

    rows = []
    for name, scores in named.items():
        low, high = scores.accuracy_interval
        row = {
            "": name.replace("\n", " "),
            "accuracy": f"{scores.accuracy:.3f}",
            "95 % interval": f"{low:.3f} to {high:.3f}",
            "macro F1": f"{scores.macro_f1:.3f}",
            "chance": f"{scores.chance:.2f}",
            "recordings": scores.n_recordings,
        }
        rows.append(row)
    return pd.DataFrame(rows)
