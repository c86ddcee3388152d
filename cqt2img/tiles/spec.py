"""Definition of a tile: all parameters that affect its pixels, with their units."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from math import log2
from pathlib import Path
from typing import Any, Literal

from cqt2img.errors import InputError

# Version of the renderer, part of `TileSpec.key`. Increase it with every change that
# gives other pixels for the same spec.
RENDERER = 2


@dataclass(frozen=True)
class TileSpec:
    """Parameters of a tile. A pixel is one CQT bin (row) in one frame (column).

    Parameters
    ----------
    sample_rate : int
        Sampling rate in Hz to which every recording is resampled, 4000 to 192000.
    hop_length : int
        Number of samples between successive frames (columns), 1 or more.
    f_min : float
        Centre frequency of the lowest bin in Hz, above 0.
    n_bins : int
        Number of CQT bins, 1 to `height`.
    bins_per_octave : int
        A multiple of 12, so that a semitone is a whole number of rows.
    gamma : float
        Bandwidth in Hz that is added to every bin, 0 or more. 0 is the constant-Q
        transform; larger values shorten the long windows of the low bins. 0 separated
        players best (`benchmarks/RESULTS.md`).
    height, width : int
        Size of a tile in pixels. Rows above `n_bins` are filled with level 0.
    min_db, max_db : float
        Levels 0 and 255, in dB relative to the reference of the recording.
    reference_percentile : float
        Percentile of all magnitudes of a recording that defines 0 dB, 50 to 100.
    tuning : {"remove", "keep"}
        "remove" shifts the bins to the estimated tuning of the recording, "keep"
        uses A4 = 440 Hz.
    min_fill : float
        Smallest fraction of the last tile that must be covered by the recording,
        0 to 1; below it the tile is dropped. A recording shorter than one tile always
        has one tile.
    colour_map : str
        Name of a matplotlib colour map with 256 distinct colours, the palette of the
        PNG files.

    Raises
    ------
    InputError
        If a parameter is out of range.

    References
    ----------
    Judith C. Brown, "Calculation of a constant Q spectral transform", 1991.
    Christian Schörkhuber, Anssi Klapuri, Nicki Holighaus and Monika Dörfler, "A Matlab
    toolbox for efficient perfect reconstruction time-frequency transforms with
    log-frequency resolution", 2014.

    Examples
    --------
    The preset "piano" has two rows per semitone and starts at A0:

    >>> spec = TileSpec.preset("piano")
    >>> spec.row_of_note(69), round(spec.f_min * 2 ** (96 / 24), 1)
    (95, 440.0)
    >>> round(spec.tile_seconds, 2)
    5.94
    """

    sample_rate: int = 22_050
    hop_length: int = 512
    f_min: float = 27.5
    n_bins: int = 192
    bins_per_octave: int = 24
    gamma: float = 0.0
    height: int = 192
    width: int = 256
    min_db: float = -60.0
    max_db: float = 6.0
    reference_percentile: float = 99.9
    tuning: Literal["remove", "keep"] = "remove"
    min_fill: float = 0.25
    colour_map: str = "magma"

    def __post_init__(self) -> None:
        for name in _RANGES:
            _check_range(self, name)
        _check_bins(self)
        if self.max_db <= self.min_db:
            _fail(self, "max_db", f"be above min_db = {self.min_db}")
        if self.tuning not in ("remove", "keep"):
            _fail(self, "tuning", "be 'remove' or 'keep'")

    @classmethod
    def preset(cls, name: str | Path) -> "TileSpec":
        """Return a preset, or load a spec from a JSON file.

        Parameters
        ----------
        name : str or Path
            Name of one of `PRESETS`, such as "piano", or the path of a JSON file
            written with `to_json`.

        Returns
        -------
        TileSpec
            The spec.

        Raises
        ------
        InputError
            If `name` is neither a preset nor a valid JSON file.

        Examples
        --------
        >>> TileSpec.preset("fast").size
        (96, 128)
        """
        if str(name) in PRESETS:
            return PRESETS[str(name)]
        path = Path(name)
        if not path.is_file():
            raise InputError(
                f"preset {str(name)!r} is neither one of {', '.join(PRESETS)} nor a "
                "JSON file. Check the spelling."
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as err:
            raise InputError(
                f"preset {str(name)!r} is not a valid JSON file: {err}. "
                "Write it with TileSpec.to_json."
            ) from err
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TileSpec":
        """Create a spec from a dictionary of parameters.

        Parameters
        ----------
        values : dict
            Parameters by name; missing ones take their default.

        Returns
        -------
        TileSpec
            The spec.

        Raises
        ------
        InputError
            If `values` is not a dictionary or has an unknown name.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping):
            raise InputError(
                "TileSpec.from_dict: values must be a dictionary with the parameters "
                f"of a spec, got {values!r}. Use {', '.join(names)}."
            )
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise InputError(
                "TileSpec.from_dict: values must contain only parameters of a spec, "
                f"got {unknown[0]!r}. Use {', '.join(names)}."
            )
        return cls(**values)

    def to_json(self) -> str:
        """Return the parameters as JSON.

        Returns
        -------
        str
            A JSON object with one parameter per line.
        """
        return json.dumps(asdict(self), indent=2) + "\n"

    @cached_property
    def key(self) -> str:
        """Hash of everything that affects pixels, 12 hexadecimal digits."""
        values = {}
        for field in fields(self):
            # 4 and 4.0 are the same number and must give the same key.
            to_type = type(getattr(TileSpec, field.name))
            values[field.name] = to_type(getattr(self, field.name))
        text = json.dumps([RENDERER, values], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a tile in pixels."""
        return self.height, self.width

    @property
    def frame_seconds(self) -> float:
        """Duration of one frame (column) in seconds."""
        return self.hop_length / self.sample_rate

    @property
    def tile_seconds(self) -> float:
        """Duration of one tile in seconds."""
        return self.width * self.frame_seconds

    @property
    def step_db(self) -> float:
        """Difference between successive levels in dB."""
        return (self.max_db - self.min_db) / 255

    def row_of_note(self, midi: float) -> int:
        """Return the pixel row of a note.

        Parameters
        ----------
        midi : float
            MIDI note number; 69 is A4.

        Returns
        -------
        int
            Row index, 0 at the top of the tile.

        Raises
        ------
        InputError
            If the note is outside the range of the bins.
        """
        midi_of_f_min = 69 + 12 * log2(self.f_min / 440)
        bin_index = round((midi - midi_of_f_min) * self.bins_per_octave / 12)
        if not 0 <= bin_index < self.n_bins:
            raise InputError(
                f"TileSpec.row_of_note: midi must be within the {self.n_bins} bins, "
                f"got {midi}. Use a spec with a wider range."
            )
        return self.height - 1 - bin_index


_RANGES: dict[str, tuple[float, float]] = {
    "sample_rate": (4_000, 192_000),
    "hop_length": (1, 1_000_000),
    "f_min": (1.0, 20_000.0),
    "n_bins": (1, 10_000),
    "bins_per_octave": (12, 1200),
    "gamma": (0.0, 1000.0),
    "height": (1, 10_000),
    "width": (1, 100_000),
    "min_db": (-200.0, 0.0),
    "max_db": (-100.0, 100.0),
    "reference_percentile": (50.0, 100.0),
    "min_fill": (0.0, 1.0),
}


def _fail(spec: TileSpec, name: str, rule: str) -> None:
    """Raise an InputError about one parameter."""
    raise InputError(f"TileSpec: {name} must {rule}, got {getattr(spec, name)!r}.")


def _check_range(spec: TileSpec, name: str) -> None:
    """Raise an InputError if a parameter has the wrong type or is out of range."""
    value = getattr(spec, name)
    low, high = _RANGES[name]
    if isinstance(getattr(TileSpec, name), int):
        kind = "an integer"
        has_type = isinstance(value, int) and not isinstance(value, bool)
    else:
        kind = "a number"
        has_type = isinstance(value, int | float) and not isinstance(value, bool)
    if not has_type or not low <= value <= high:
        _fail(spec, name, f"be {kind} from {low} to {high}")


def _check_bins(spec: TileSpec) -> None:
    """Raise an InputError if the bins do not fit the tile or the sampling rate."""
    if spec.bins_per_octave % 12:
        _fail(spec, "bins_per_octave", "be a multiple of 12")
    if spec.n_bins > spec.height:
        _fail(spec, "n_bins", f"be at most height = {spec.height}")
    # Highest frequency of a recording tuned a quarter tone sharp, with half the added
    # bandwidth; librosa rejects bins above the Nyquist frequency, too.
    n_octaves = spec.n_bins / spec.bins_per_octave
    top = spec.f_min * 2 ** (n_octaves + 1 / 24) + spec.gamma / 2
    nyquist = spec.sample_rate / 2
    if top >= nyquist:
        rule = f"end below half of sample_rate, {nyquist:g} Hz"
        _fail(spec, "n_bins", rule)


# On albums held out, neither bins per octave nor hop nor width made a difference beyond
# chance (benchmarks/presets.py): cost and music decided.
PRESETS: dict[str, TileSpec] = {
    # the pixels of "piano" in longer tiles: phrases are counted within a tile
    "notes": TileSpec(width=640),
    "piano": TileSpec(),
    # shorter columns, for faster playing
    "jazz": TileSpec(hop_length=384),
    # finer bins for many instruments; the pitch of an orchestra is characteristic
    "orchestra": TileSpec(
        bins_per_octave=36, n_bins=288, height=288, width=384, tuning="keep"
    ),
    # a quarter of the pixels, for a first try on a laptop
    "fast": TileSpec(
        bins_per_octave=12, n_bins=96, hop_length=1024, height=96, width=128
    ),
}
