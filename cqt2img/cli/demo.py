"""The story of the album effect, told on synthetic players in three minutes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.progress import progress_bar
from cqt2img.auditing.leakage import score_tiles
from cqt2img.classifier import Classifier
from cqt2img.data.recordings import list_recordings
from cqt2img.data.render import render
from cqt2img.data.synthetic import make_corpus
from cqt2img.data.tile_arrays import TileArrays, load_tile_arrays
from cqt2img.data.tile_folder import TileSet
from cqt2img.errors import InputError
from cqt2img.evaluation.evaluation import Evaluation
from cqt2img.evaluation.page import Section, render_page
from cqt2img.evaluation.plots import plot_confusion, plot_scores
from cqt2img.evaluation.report import write_table
from cqt2img.models.factory import build_network
from cqt2img.models.notes import NOTES
from cqt2img.tiles.display import plot_tiles
from cqt2img.training.callbacks import default_callbacks
from cqt2img.training.config import TrainingSettings

if TYPE_CHECKING:
    import pandas as pd

_N_PLAYERS, _N_ALBUMS, _N_TAKES, _SECONDS = 5, 6, 5, 12
_N_TEST = 2  # albums of every player that no training meets
_BACKBONE, _RATE = "test_resnet", 3e-3
_EPOCHS = 20
_PAGE = "index.html"
_MARK = "SYNTHETIC.txt"  # a folder of the user's own may well hold `recordings`


def run_demo(
    out: Path, seed: int, say: Callable[[str], Any], progress: bool
) -> dict[str, Evaluation]:
    """Make a corpus, fit three ways, and write a page about it.

    Parameters
    ----------
    out : Path
        Folder for everything: recordings, tiles, a model, a page.
    seed : int
        Of the corpus and of the training.
    say : callable
        Gets every line of the story.
    progress : bool
        Whether to show how far long work is.

    Returns
    -------
    dict of str to Evaluation
        `loose`: tiles split at random. `strict`: the same network on albums never met.
        `library`: what `Classifier` makes of those albums.

    Raises
    ------
    InputError
        If `out` holds something else than an earlier demo.
    """
    start = time.perf_counter()
    if out.exists() and (
        not out.is_dir() or (any(out.iterdir()) and not (out / _MARK).is_file())
    ):
        raise InputError(
            f"demo: out must be new or an earlier demo, got {str(out)!r}. Choose another folder."
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).write_text(
        "All in this folder is synthetic, made by `cqt2img demo`.\n", encoding="utf-8"
    )
    say(
        "This sound is synthetic: invented players, invented pianos, melodies in the public domain."
    )
    say(
        f"1. {_N_PLAYERS} players record {_N_ALBUMS} albums each, every one with its own piano, room and equaliser."
    )
    make_corpus(out / "recordings", _N_PLAYERS, _N_ALBUMS, _N_TAKES, _SECONDS, seed)
    bar = progress_bar if progress else None
    tiles = render(out / "recordings", out / "tiles", "fast", progress=bar)
    recordings = list_recordings(tiles)
    table = recordings.to_frame()
    is_test = _held_out(table)
    strips, _ = load_tile_arrays(recordings, tiles.spec)
    say(
        "2. The illusion: a network learns from some tiles and is tested on other tiles of the same recordings."
    )
    loose = _tile_score(strips, table, _N_TEST / _N_ALBUMS, seed, progress)
    say(f"   {loose.accuracy:.0%} of the tiles are right.")
    say("3. The truth: the same network is tested on albums that it never met.")
    strict = _tile_score(strips, table, is_test, seed, progress)
    say(
        f"   {strict.accuracy:.0%} of the tiles are right. Chance is {strict.chance:.0%}."
    )
    say(
        "4. What cqt2img does: it reads the notes, whatever the piano, the room and the equaliser, and learns from"
    )
    say("   these alone; every recording gets one answer.")
    finer = list_recordings(
        render(out / "recordings", out / "notes", NOTES, progress=bar)
    ).to_frame()
    model = Classifier(random_state=seed, verbose=progress).fit(finer[~is_test])
    library = model.evaluate(finer[is_test])
    answers = model.identify(finer[is_test], top_k=2)
    played = finer[is_test].set_index("path")["label"]
    low, high = library.accuracy_interval
    say(
        f"   {library.accuracy:.0%} of the recordings are right (95 % interval {low:.0%} to {high:.0%} over albums)."
    )
    model.save(out / "model")
    write_table(
        answers.assign(played=answers["path"].map(played)), out / "predictions.csv"
    )
    scores = {"loose": loose, "strict": strict, "library": library}
    _write(out, tiles, table, scores)
    clip = next(iter(table.loc[is_test, "path"]))
    say(f"Done in {time.perf_counter() - start:.0f} s. Look at {out / _PAGE}")
    say(f"Now try: cqt2img predict {clip} -m {out / 'model'}")
    return scores


def _held_out(table: "pd.DataFrame") -> NDArray[np.bool_]:
    """Mark the last albums of every player."""
    number = table["group"].str.rsplit("-", n=1).str[1].astype(int)
    return np.asarray(number > _N_ALBUMS - _N_TEST)


def _tile_score(
    strips: TileArrays,
    table: "pd.DataFrame",
    is_test: NDArray[np.bool_] | float,
    seed: int,
    progress: bool,
) -> Evaluation:
    """Score a network that learns from single tiles as they are."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(_BACKBONE, table["label"].nunique(), strips.spec)
    recipe = TrainingSettings(
        epochs=_EPOCHS, learning_rate=_RATE, augment="none", seed=seed
    )
    with default_callbacks(progress) as watch:
        return score_tiles(strips, table, is_test, network, recipe, watch)


def _write(
    out: Path, tiles: TileSet, table: "pd.DataFrame", scores: dict[str, Evaluation]
) -> None:
    """Write the page."""
    names = [
        "tiles split at random\n(the illusion)",
        "albums never met,\nsame network",
        "albums never met,\ncqt2img",
    ]
    players = list(dict.fromkeys(table["label"]))
    sections = [
        Section(
            text="The sound on this page is synthetic. Five invented players perform melodies in the public domain. "
            "Each has a touch, a timing and a left hand of their own, and each records six albums; every album has its "
            "own piano, room, tuning and equaliser. The question is always: who plays?",
            figure=plot_scores(names, list(scores.values())),
            caption="The grey bar is what a first network reports when tiles of one recording stand on both sides of "
            "the split. It has learned the sound of each album, and albums that it never met sound otherwise. The last "
            "bar is Classifier on the same albums: it reads the notes, and learns from intervals, chords, phrases, "
            "touch and pace alone; every recording gives one answer. Lines are 95 % intervals over albums.",
        ),
        Section(
            title="What is seen",
            text="Time runs to the right, pitch upwards; bright is loud. Each row is one player on two albums. What "
            "the two have in common is the player. What differs from left to right is piano, room and equaliser; "
            "a network takes that if it can, for it is easier.",
            figure=plot_tiles(*_pairs(tiles, table, players[:3]), n_columns=2),
        ),
        Section(
            title="What is heard",
            audio={_said(player): _first_take(table, player) for player in players},
        ),
        Section(
            title="Who is taken for whom",
            text="On albums that training never met, one answer per recording:",
            figure=plot_confusion(scores["library"]),
        ),
        Section(title="In numbers", table=_score_table(names, scores)),
    ]
    render_page(out / _PAGE, "Who is playing?", sections)


def _pairs(
    tiles: TileSet, table: "pd.DataFrame", players: list[str]
) -> tuple[NDArray[np.uint8], Any, list[str]]:
    """Give one tile from each of two albums of every player."""
    chosen, titles = [], []
    for player in players:
        albums = table[table["label"] == player].drop_duplicates("group")
        for row in albums.iloc[:2].itertuples():
            strips, _ = load_tile_arrays(
                list_recordings(table.loc[[row.Index]]), tiles.spec
            )
            chosen.append(strips.tiles(0)[0])
            titles.append(f"{_said(player)}, album {str(row.group).rsplit('-', 1)[1]}")
    return np.stack(chosen), tiles.spec, titles


def _first_take(table: "pd.DataFrame", player: str) -> Path:
    return Path(table.loc[table["label"] == player, "path"].iloc[0])


def _said(label: str) -> str:
    return label.replace("-", " ").title()


def _score_table(names: list[str], scores: dict[str, Evaluation]) -> "pd.DataFrame":
    import pandas as pd

    rows = []
    for name, one in zip(names, scores.values(), strict=True):
        low, high = one.accuracy_interval
        row = {
            "": name,
            "accuracy": f"{one.accuracy:.3f}",
            "95 % interval": f"{low:.3f} to {high:.3f}",
            "macro F1": f"{one.macro_f1:.3f}",
            "chance": f"{one.chance:.2f}",
            "samples": one.n_recordings,
        }
        rows.append(row)
    return pd.DataFrame(rows)
