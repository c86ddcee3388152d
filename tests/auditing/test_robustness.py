import numpy as np
import pytest

from cqt2img.auditing import robustness as stability
from cqt2img.auditing.robustness import KINDS, measure_robustness
from cqt2img.data.recordings import list_recordings


def test_a_player_known_by_register_is_known_through_every_change(model, folder):
    found = measure_robustness(
        model, list_recordings(folder).to_frame(), n_recordings=6
    )
    assert found["disturbance"].tolist() == list(KINDS)
    assert (found["n"] == 6).all()
    assert (found["right_before"] == found["right_before"].iloc[0]).all()
    assert found["moved"].between(0, 1).all()
    assert found["changed"].iloc[0] <= 0.2  # the same notes, from a second later on
    assert found["moved"].max() > 0.001  # something was changed


def test_a_model_that_listens_to_level_of_the_highest_row_is_moved_by_hiss(
    model, folder, monkeypatch
):
    def by_noise(X):
        hissing = np.array([one[-10:].mean() > X[0][-10:].mean() + 5 for one in X])
        return np.stack([hissing, ~hissing, np.zeros(len(X))], axis=1).astype(
            np.float32
        )

    monkeypatch.setattr(model, "predict_proba", by_noise)
    found = measure_robustness(
        model, list_recordings(folder / "Low").to_frame(), 2
    ).set_index("disturbance")
    assert found["changed"]["noise 20 dB"] == found["moved"]["noise 20 dB"] == 1
    assert found["changed"]["starts 1 s later"] == 0


def test_classes_take_turns_and_bad_files_cost_themselves(model, folder, bad_folder):
    table = list_recordings(folder).to_frame()
    assert measure_robustness(model, table, n_recordings=3)["n"].tolist() == [3] * len(
        KINDS
    )
    both = list_recordings(
        [*sorted(folder.rglob("*.wav"))[:2], *sorted(bad_folder.glob("*.wav"))]
    ).to_frame()
    both["label"] = "High"
    assert measure_robustness(model, both)["n"].iloc[0] == 2


def test_pictures_alone_cannot_be_changed(model):
    table = list_recordings([np.zeros((60, 40)) + 1], ["High"]).to_frame()
    found = measure_robustness(model, table)
    assert len(found) == 0
    assert found.columns.tolist() == [
        "disturbance",
        "changed",
        "moved",
        "right_before",
        "right_after",
        "n",
    ]


@pytest.mark.parametrize("factor", [1 / 1.03, 1.03, 1.0])
def test_a_picture_is_stretched_in_time_alone(factor):
    cqt = np.arange(200, dtype=np.float32)[None] * np.array([[1.0], [2.0]], np.float32)
    longer = stability._stretch(cqt, factor)
    assert longer.shape == (2, round(200 * factor))
    steps = np.diff(longer, axis=1)[:, :-5]
    np.testing.assert_allclose(
        steps, np.broadcast_to([[1 / factor], [2 / factor]], steps.shape), rtol=1e-3
    )
    assert stability._stretch(cqt[:, :1], factor).shape == (2, 1)
