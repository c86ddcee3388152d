"""Train on CQT arrays of your own, without audio files.

python examples/own_cqt.py
"""

import librosa
import numpy as np

import cqt2img

SPEC = cqt2img.TileSpec(
    sample_rate=22_050,
    hop_length=512,
    f_min=float(librosa.note_to_hz("C1")),
    n_bins=84,
    bins_per_octave=12,
    gamma=0.0,
    height=96,
    width=128,
    tuning="keep",
)


def scale(first: int, step: int) -> np.ndarray:
    """Return eight ascending sine tones of 0.4 s each."""
    notes = [librosa.midi_to_hz(first + step * n) for n in range(8)]
    return np.concatenate([librosa.tone(hz, sr=22_050, duration=0.4) for hz in notes])


def main() -> None:
    """Cut arrays into tiles, train on ten of them, and predict two."""
    waves = [scale(48 + n, step) for step in (1, 2) for n in range(6)]
    cqts = [
        np.abs(librosa.cqt(wave, sr=22_050, hop_length=512, n_bins=84))
        for wave in waves
    ]
    labels = ["chromatic"] * 6 + ["whole-tone"] * 6

    tiles = cqt2img.cut_tiles(cqts[0], SPEC)
    print("tiles of the first array:", tiles.shape, tiles.dtype)

    model = cqt2img.Classifier(
        "test_resnet",
        weights=None,
        spec=SPEC,
        epochs=10,
        learning_rate=3e-3,
        verbose=False,
        config=cqt2img.TrainingConfig(validation_fraction=0),
    )
    model.fit(cqts[:5] + cqts[6:11], labels[:5] + labels[6:11])
    print(
        model.identify([cqts[5], cqts[11]])[["path", "label", "probability", "status"]]
    )


if __name__ == "__main__":
    main()
