from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from cqt2img.auditing import checks
from cqt2img.auditing.checks import CHECKS, Failure, Measurements
from cqt2img.auditing.findings import SEVERITIES
from cqt2img.auditing.label_errors import LabelError
from cqt2img.auditing.leakage import SplitScore
from cqt2img.auditing.matching import TakePair
from cqt2img.auditing.robustness import PERTURBATIONS, RobustnessScore
from cqt2img.auditing.shortcuts import ConfoundScore
from cqt2img.evaluation.evaluation import evaluate_proba

TRAIN_TEST = ["train", "train", "test", "test"] * 2


def measured(**fields):
    """Two players with two albums of two takes each, and what was measured of them."""
    paths = []
    labels = []
    groups = []
    for player in ("Evans", "Monk"):
        for album in range(2):
            for take in range(2):
                paths.append(f"{player}/{album}/take {take}.flac")
                labels.append(player)
                groups.append(f"{player}/{album}")
    return replace(Measurements(paths=paths, labels=labels, groups=groups), **fields)


def only(findings):
    (finding,) = findings
    assert finding.severity in SEVERITIES
    return finding


def split_score(held_out, accuracy, n=100):
    class_indices = np.tile([0, 1], n // 2)
    is_correct = np.arange(n) < accuracy * n
    predicted = np.where(is_correct, class_indices, 1 - class_indices)
    proba = np.eye(2, dtype=np.float32)[predicted]
    scores = evaluate_proba(proba, class_indices, ["a", "b"])
    return SplitScore(held_out, accuracy, scores, proba, np.arange(n))


def confound_score(confound, *, is_shortcut=True, held_out="groups"):
    return ConfoundScore(
        confound=confound,
        held_out=held_out,
        accuracy=0.9,
        low=0.8,
        high=1.0,
        chance=0.5,
        p_value=0.001,
        is_shortcut=is_shortcut,
        classes=(),
        explanation=f"The {confound} alone …",
        advice="Vary it.",
    )


def robustness(*changed, n=40):
    scores = []
    for perturbation, fraction in zip(PERTURBATIONS, changed, strict=False):
        score = RobustnessScore(perturbation, fraction, 0.1, 0.9, 0.8, n)
        scores.append(score)
    return scores


@pytest.mark.parametrize("check", CHECKS)
def test_no_check_finds_anything_without_a_problem(check):
    assert not list(check(measured()))


def test_groups_on_two_sides_of_the_split_are_leakage():
    splits = ["train", "test"] + ["train"] * 4 + ["test"] * 2
    finding = only(checks.report_split_groups(measured(splits=splits)))
    assert (finding.kind, finding.severity) == ("leakage", "fault")
    assert "1 group is" in finding.title
    assert "Evans/0." in finding.title
    assert finding.files == ("Evans/0/take 0.flac", "Evans/0/take 1.flac")


def test_whole_groups_on_either_side_are_no_leakage():
    whole = measured(splits=TRAIN_TEST)
    assert not list(checks.report_split_groups(whole))
    assert not list(checks.report_split_clips(whole))


def test_clips_without_groups_are_recognised_by_their_names():
    paths = ["Dinah_01.wav", "Dinah_02.wav", "Ruby-tile-3.wav", "Ruby-tile-4.wav"]
    paths += ["Israel.wav", "Nardis.wav"]
    clips = Measurements(paths=paths, labels=["Monk"] * 4 + ["Evans"] * 2, groups=paths)
    splits = ["train", "test", "train", "train", "train", "test"]
    finding = only(checks.report_split_clips(replace(clips, splits=splits)))
    assert (finding.kind, finding.severity) == ("leakage", "fault")
    assert "Dinah" in finding.title
    assert finding.files == ("Dinah_01.wav", "Dinah_02.wav")
    together = ["train", "train", "test", "test", "train", "test"]
    assert not list(checks.report_split_clips(replace(clips, splits=together)))


@pytest.mark.parametrize(
    ("pair", "kind", "severity"),
    [
        ((0, 4), "conflicting labels", "fault"),
        ((0, 2), "leakage", "fault"),
        ((0, 1), "duplicates", "warning"),
    ],
)
def test_duplicates_are_reported_by_their_worst_effect(pair, kind, severity):
    both = measured(splits=TRAIN_TEST, duplicates=[TakePair(*pair, 0.9)])
    finding = only(checks.report_duplicates(both))
    assert (finding.kind, finding.severity) == (kind, severity)
    first, second = (both.paths[index] for index in pair)
    assert finding.files == (f"{first} = {second}",)
    assert finding.title.startswith("1 pair of recordings is the same take ")


def test_duplicates_in_two_groups_are_a_fault_without_a_split():
    pairs = [TakePair(0, 2, 0.9), TakePair(1, 3, 0.9)]
    finding = only(checks.report_duplicates(measured(duplicates=pairs)))
    assert (finding.kind, finding.severity) == ("duplicates", "fault")
    assert finding.title.startswith("2 pairs of recordings are the same take in two")


def test_missing_groups_are_reported_once():
    no_groups = measured(groups=measured().paths)
    assert only(checks.report_missing_groups(no_groups)).kind == "no groups"
    assert not list(checks.report_single_groups(no_groups))


def test_classes_of_one_group_are_a_fault():
    groups = [*measured().groups[:4], *["Solo Monk"] * 4]
    finding = only(checks.report_single_groups(measured(groups=groups)))
    assert (finding.kind, finding.severity) == ("single group", "fault")
    assert finding.title.startswith("1 of 2 classes has only one album: Monk.")
    assert len(finding.files) == 4


def test_the_album_effect_is_the_difference_of_accuracies():
    leakage = [split_score("tiles", 0.9), split_score("recordings", 0.8)]
    leakage.append(split_score("albums", 0.3))
    finding = only(checks.report_album_effect(measured(leakage=leakage)))
    assert finding.severity == "warning"
    for part in ("90%", "30%", "60 points", "albums"):
        assert part in finding.title


@pytest.mark.parametrize(
    ("strict", "severity"), [(0.8, "note"), (0.89, None), (0.9, None)]
)
def test_a_small_album_effect_is_a_note_or_nothing(strict, severity):
    leakage = [split_score(held_out, 0.9, 400) for held_out in ("tiles", "recordings")]
    leakage.append(split_score("albums", strict, 400))
    findings = list(checks.report_album_effect(measured(leakage=leakage)))
    assert [finding.severity for finding in findings] == (
        [severity] if severity else []
    )


def test_the_album_effect_needs_a_level_beyond_recordings():
    leakage = [split_score("tiles", 0.9), split_score("recordings", 0.3)]
    assert not list(checks.report_album_effect(measured(leakage=leakage)))


def test_a_wide_interval_is_reported_as_a_small_sample():
    leakage = [split_score("albums", 0.5, 8)]
    finding = only(checks.report_small_sample(measured(leakage=leakage)))
    assert finding.title.startswith("8 recordings in 4 groups are few")
    precise = measured(leakage=[split_score("albums", 0.5, 1000)])
    assert not list(checks.report_small_sample(precise))


def test_perturbations_are_compared_with_shifted_tiles():
    changed = measured(robustness=robustness(0.1, 0.6, 0.15))
    finding = only(checks.report_robustness(changed))
    assert "equaliser 6 dB (60%)" in finding.title
    assert "mp3" not in finding.title


@pytest.mark.parametrize("changed", [(0.3, 0.35, 0.2), (0.0, 0.05, 0.0), ()])
def test_small_changes_are_not_reported(changed):
    assert not list(checks.report_robustness(measured(robustness=robustness(*changed))))


def test_every_shortcut_is_reported():
    scores = [confound_score("tuning"), confound_score("level", is_shortcut=False)]
    finding = only(checks.report_shortcuts(measured(confounds=scores)))
    assert (finding.kind, finding.confound) == ("shortcut", "tuning")
    assert finding.severity == "fault"
    assert (finding.title, finding.advice) == (scores[0].explanation, "Vary it.")


def test_the_channel_includes_mean_spectrum_and_noise_floor():
    names = ("mean spectrum", "noise floor", "channel")
    scores = [confound_score(name) for name in names]
    finding = only(checks.report_shortcuts(measured(confounds=scores)))
    assert (finding.kind, finding.confound) == ("shared channel", "channel")


@pytest.mark.parametrize(
    ("confound", "held_out", "severity"),
    [
        ("mean spectrum", "groups", "warning"),
        ("piece", "groups", "warning"),
        ("level", "recordings", "note"),
        ("channel", "recordings", "note"),
    ],
)
def test_shortcuts_that_may_belong_to_player_or_album_are_less_severe(
    confound, held_out, severity
):
    score = confound_score(confound, held_out=held_out)
    finding = only(checks.report_shortcuts(measured(confounds=[score])))
    assert (finding.kind, finding.severity) == ("shortcut", severity)


def test_similar_names_are_reported():
    labels = ["Bill Evans"] * 4 + ["bill evans"] * 4
    finding = only(checks.report_similar_names(measured(labels=labels)))
    assert "'Bill Evans' and 'bill evans'" in finding.title


def test_label_errors_are_listed():
    errors = [LabelError(0, "a.wav", "Monk", "Evans", False, 2.0)]
    finding = only(checks.report_label_errors(measured(label_errors=errors)))
    assert finding.title == "1 label is probably wrong."
    assert finding.files == ("a.wav: labelled Monk, more likely Evans",)


def test_unreadable_recordings_are_listed_with_the_reason():
    failures = [Failure("a.wav", "too_short"), Failure("b.wav", "silent")]
    finding = only(checks.report_unreadable(measured(failures=failures)))
    assert (finding.kind, finding.severity) == ("unreadable", "note")
    assert finding.files == ("a.wav: too short", "b.wav: silent")


def test_scores_on_training_groups_are_a_fault():
    scores = SimpleNamespace(known_groups=("Solo Monk",), n_groups=4)
    finding = only(checks.report_training_groups(measured(scores=scores)))
    assert (finding.kind, finding.severity) == ("training groups", "fault")
    assert "1 of the 4 groups" in finding.title
    assert finding.files == ("Solo Monk",)
