"""Every number that changes a pixel, with its unit."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cqt2img.errors import InputError

RENDERER = 2  # raised whenever the same spec would give other pixels


@dataclass(frozen=True)
class TileSpec:
    """What one pixel means: one CQT bin (height) in one frame (width), as a quantised level in dB.

    Parameters
    ----------
    sample_rate : int
        Rate to which every recording is brought, in Hz, 4000 to 192000.
    hop_length : int
        Samples from one frame (column) to the next, 1 or more.
    f_min : float
        Frequency of the lowest bin in Hz, above 0.
    n_bins : int
        Number of CQT bins, 1 to `height`.
    bins_per_octave : int
        A multiple of 12, so that a semitone is a whole number of rows.
    gamma : float
        Bandwidth added to every bin in Hz, 0 or more. 0 is the constant-Q transform; more shortens
        the long windows of the bass. Players were told apart best with 0 (`benchmarks/RESULTS.md`).
    height, width : int
        Size of a tile in pixels. Rows above `n_bins` hold the floor.
    min_db, max_db : float
        Levels 0 and 255, in dB relative to the recording's own reference.
    reference_percentile : float
        Percentile of the magnitudes of a whole recording that is 0 dB, 50 to 100.
    tuning : {"remove", "keep"}
        "remove" moves the bins to the tuning of the recording, "keep" leaves A4 at 440 Hz.
    min_fill : float
        A last tile with a smaller part of sound than this is left out, 0 to 1. A recording shorter
        than one tile always has its one tile.
    colour_map : str
        Name of a matplotlib colour map whose 256 colours all differ; the palette of the PNG.

    Raises
    ------
    InputError
        If a number is outside its range.

    References
    ----------
    Judith C. Brown, "Calculation of a constant Q spectral transform", 1991.
    Christian Schörkhuber, Anssi Klapuri, Nicki Holighaus and Monika Dörfler, "A Matlab toolbox for
    efficient perfect reconstruction time-frequency transforms with log-frequency resolution", 2014.

    Examples
    --------
    The piano preset draws two rows for each semitone, from the lowest A upwards:

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
        _check(self)

    @classmethod
    def preset(cls, name: str | Path) -> "TileSpec":
        """Give the spec of a preset, or of a JSON file with the fields of a spec.

        Parameters
        ----------
        name : str or Path
            "notes", "piano", "jazz", "orchestra", "fast", or the path of a JSON file.

        Returns
        -------
        TileSpec
            The spec.

        Raises
        ------
        InputError
            If `name` is neither a preset nor a readable file of fields.

        Examples
        --------
        >>> TileSpec.preset("fast").size
        (96, 128)
        """
        if str(name) in PRESETS:
            return cls(**PRESETS[str(name)])
        path = Path(name)
        if not path.is_file():
            raise InputError(
                f"TileSpec.preset: name must be one of {', '.join(PRESETS)} or a JSON file, got {str(name)!r}. "
                "Choose one, or write the file with TileSpec.to_json."
            )
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (UnicodeDecodeError, json.JSONDecodeError) as err:
            raise InputError(
                f"TileSpec.preset: name must be a JSON file, got {str(name)!r}: {err}. Write it with TileSpec.to_json."
            ) from err

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TileSpec":
        """Give the spec with these fields, and the defaults for the rest.

        Parameters
        ----------
        values : dict
            Field names and their values.

        Returns
        -------
        TileSpec
            The spec.

        Raises
        ------
        InputError
            If `values` is not a dict, or holds a name that is no field.
        """
        names = [f.name for f in fields(cls)]
        strange = (
            sorted(set(values) - set(names))
            if isinstance(values, dict)
            else [repr(values)]
        )
        if strange:
            raise InputError(
                f"TileSpec.from_dict: values must be fields of a spec, got {strange[0]}. Use {', '.join(names)}."
            )
        return cls(**values)

    def to_json(self) -> str:
        """Write the fields as JSON.

        Returns
        -------
        str
            The fields, one a line.
        """
        return json.dumps(asdict(self), indent=2) + "\n"

    @cached_property
    def key(self) -> str:
        """Twelve hexadecimal digits that name everything that changes a pixel."""
        # 4 and 4.0 are one number
        values = {
            f.name: type(getattr(TileSpec, f.name))(getattr(self, f.name))
            for f in fields(self)
        }
        text = json.dumps([RENDERER, values], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a tile in pixels."""
        return self.height, self.width

    @property
    def frame_seconds(self) -> float:
        """Time from one column to the next, in seconds."""
        return self.hop_length / self.sample_rate

    @property
    def tile_seconds(self) -> float:
        """Time that one tile shows, in seconds."""
        return self.width * self.frame_seconds

    @property
    def step_db(self) -> float:
        """Difference between two neighbouring levels in dB."""
        return (self.max_db - self.min_db) / 255

    def row_of_note(self, midi: float) -> int:
        """Give the pixel row of a note, counted from the top of the tile.

        Parameters
        ----------
        midi : float
            MIDI note number, 69 is A4.

        Returns
        -------
        int
            Row, 0 at the top.

        Raises
        ------
        InputError
            If the note lies outside the tile.
        """
        from math import log2

        note_of_f_min = 69 + 12 * log2(self.f_min / 440)
        bin_ = round((midi - note_of_f_min) * self.bins_per_octave / 12)
        if not 0 <= bin_ < self.n_bins:
            raise InputError(
                f"TileSpec.row_of_note: midi must lie within the {self.n_bins} bins, got {midi}. Use another spec."
            )
        return self.height - 1 - bin_


PRESETS: dict[str, dict[str, Any]] = {
    "notes": {"width": 640},
    "piano": {},
    "jazz": {"hop_length": 384},
    "orchestra": {
        "bins_per_octave": 36,
        "n_bins": 288,
        "height": 288,
        "width": 384,
        "tuning": "keep",
    },
    "fast": {
        "bins_per_octave": 12,
        "n_bins": 96,
        "hop_length": 1024,
        "height": 96,
        "width": 128,
    },
}

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


def _check(spec: TileSpec) -> None:
    """Refuse numbers outside their ranges."""

    def refuse(name: str, rule: str) -> None:
        raise InputError(
            f"TileSpec: {name} must {rule}, got {getattr(spec, name)!r}. Choose another value."
        )

    for name, (low, high) in _RANGES.items():
        value = getattr(spec, name)
        kinds = (int,) if isinstance(getattr(TileSpec, name), int) else (int, float)
        if (
            isinstance(value, bool)
            or not isinstance(value, kinds)
            or not low <= value <= high
        ):
            refuse(
                name,
                f"be {'a whole number' if kinds == (int,) else 'a number'} from {low} to {high}",
            )
    if spec.bins_per_octave % 12:
        refuse("bins_per_octave", "be a multiple of 12")
    if spec.n_bins > spec.height:
        refuse("n_bins", f"be at most the height of {spec.height}")
    if spec.max_db <= spec.min_db:
        refuse("max_db", f"be above min_db of {spec.min_db}")
    if spec.tuning not in ("remove", "keep"):
        refuse("tuning", "be 'remove' or 'keep'")
    # a quarter tone sharp, with the width of the highest bin; librosa stops at recordings that need more
    top = (
        spec.f_min * 2 ** (spec.n_bins / spec.bins_per_octave + 1 / 24) + spec.gamma / 2
    )
    if top >= spec.sample_rate / 2:
        refuse("n_bins", f"end below half the sample rate, {spec.sample_rate / 2:g} Hz")
