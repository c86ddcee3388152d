"""A fitted model: the network and all that its predictions depend on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from cqt2img._utils.array_types import Float32Array, Float64Array, Labels
from cqt2img.data.dataset import SkippedRecording
from cqt2img.data.recording_types import Label
from cqt2img.inference.calibration import to_proba
from cqt2img.inference.linear_head import LinearHead, read_head
from cqt2img.inference.open_set import OpenSetDetector, check_open_set_ready
from cqt2img.inference.predict import RecordingOutput, stack_embeddings
from cqt2img.inference.references import ReferenceSet
from cqt2img.models.factory import TileNet
from cqt2img.tiles.spec import TileSpec


@dataclass(frozen=True)
class EnrollmentReport:
    """Result of adding a player to a fitted model.

    Parameters
    ----------
    name : str, int, float or bool
        The new class.
    n_clips : int
        Number of clips that the class was fitted to.
    n_albums : int
        Number of albums that they come from.
    accuracy : float or None
        Fraction of clips that are predicted correctly when their album, or with one
        album the clip itself, is left out; None for a single clip.

    Examples
    --------
    >>> print(EnrollmentReport("Monk", 5, 2, 0.6))
    enroll: 'Monk' from 5 clips of 2 albums; accuracy on left-out albums: 60 %
    """

    name: Label
    n_clips: int
    n_albums: int
    accuracy: float | None

    @property
    def is_reliable(self) -> bool:
        """Whether the accuracy was measured on albums that were left out."""
        return self.accuracy is not None and self.n_albums > 1

    def __str__(self) -> str:
        """Describe the result in one line, without a full stop at the end."""
        clips = "1 clip" if self.n_clips == 1 else f"{self.n_clips} clips"
        albums = "1 album" if self.n_albums == 1 else f"{self.n_albums} albums"
        start = f"enroll: {self.name!r} from {clips} of {albums}"
        if self.accuracy is None:
            return (
                f"{start}; accuracy unknown, because one clip cannot be left out. "
                "Use clips of two albums or more"
            )
        percent = f"{100 * self.accuracy:.0f} %"
        if self.n_albums == 1:
            return (
                f"{start}; accuracy on left-out clips: {percent}, but expect less on "
                "other albums, because the model may have learned the sound of this "
                "album. Use clips of two albums or more"
            )
        return f"{start}; accuracy on left-out albums: {percent}"


@dataclass(frozen=True)
class TrainingProvenance:
    """The data that a model was trained on, and how training went.

    Parameters
    ----------
    groups : tuple of str
        Groups used for training or validation, sorted; also those of the model that
        `weights` named. A score on them does not measure generalisation.
    fingerprints : tuple of str
        Hashes of the tiles of these recordings, sorted; they identify a recording
        under any file name.
    history : tuple of mapping
        Metrics of each epoch.
    skipped : tuple of SkippedRecording
        Recordings that could not be read.
    enrolled : tuple of EnrollmentReport
        Players added after training.
    """

    groups: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    history: tuple[Mapping[str, object], ...] = ()
    skipped: tuple[SkippedRecording, ...] = ()
    enrolled: tuple[EnrollmentReport, ...] = ()

    def with_history(
        self, history: Iterable[Mapping[str, object]]
    ) -> "TrainingProvenance":
        """Return the same provenance with the metrics of each epoch.

        Parameters
        ----------
        history : iterable of mapping
            Metrics of each epoch.

        Returns
        -------
        TrainingProvenance
            A new provenance.
        """
        return replace(self, history=tuple(history))

    def with_enrollment(
        self,
        report: EnrollmentReport,
        *,
        groups: Iterable[str],
        fingerprints: Iterable[str],
    ) -> "TrainingProvenance":
        """Return the provenance of a model after an enrollment.

        Parameters
        ----------
        report : EnrollmentReport
            Result of the enrollment.
        groups : iterable of str
            Groups of the clips.
        fingerprints : iterable of str
            Hashes of their tiles.

        Returns
        -------
        TrainingProvenance
            A new provenance.
        """
        all_groups = {*self.groups, *groups}
        all_fingerprints = {*self.fingerprints, *fingerprints}
        return replace(
            self,
            groups=tuple(sorted(all_groups)),
            fingerprints=tuple(sorted(all_fingerprints)),
            enrolled=(*self.enrolled, report),
        )


@dataclass(frozen=True)
class FittedModel:
    """A network with all that is needed to predict the player of a recording.

    Parameters
    ----------
    network : TileNet
        The network; methods never change its weights.
    backbone : str
        Name of the backbone, as `build_network` takes it.
    in_chans : {3, 1}
        Input channels of the backbone, as `build_network` takes them.
    spec : TileSpec
        Spec of the tiles.
    classes : ndarray, shape (n_classes,)
        Labels, sorted.
    temperature : float
        Temperature of the probabilities, above 0.
    references : ReferenceSet or None
        Embeddings of the training recordings; None in models of older versions.
    open_set : OpenSetDetector
        Rule by which a recording is called unknown.
    provenance : TrainingProvenance
        The data that the model was trained on.
    """

    network: TileNet
    backbone: str
    in_chans: int
    spec: TileSpec
    classes: Labels
    temperature: float = 1.0
    references: ReferenceSet | None = None
    open_set: OpenSetDetector = field(default_factory=OpenSetDetector)
    provenance: TrainingProvenance = field(default_factory=TrainingProvenance)

    def to(self, device: torch.device) -> "FittedModel":
        """Move the network to a device, in place.

        Parameters
        ----------
        device : torch.device
            The device.

        Returns
        -------
        FittedModel
            The same model.
        """
        self.network.to(device)
        return self

    def head(self) -> LinearHead | None:
        """Return the head of the network, or None if it is not linear."""
        return read_head(self.network)

    def predict_proba(self, outputs: Sequence[RecordingOutput]) -> Float32Array:
        """Compute calibrated probabilities of recordings.

        Parameters
        ----------
        outputs : sequence of RecordingOutput
            What `predict_recordings` yields.

        Returns
        -------
        ndarray of float32, shape (n_recordings, n_classes)
            Probabilities; NaN for an unreadable recording.
        """
        proba = np.full((len(outputs), len(self.classes)), np.nan, dtype=np.float32)
        for row, output in zip(proba, outputs, strict=True):
            if output.log_proba is not None:
                row[:] = to_proba(output.log_proba, self.temperature)
        return proba

    def check_open_set_ready(self) -> None:
        """Check that the model can detect unknown players.

        Raises
        ------
        InputError
            If it has no references, no linear head, or no validation recordings.
        """
        check_open_set_ready(self.references, self.head())

    def open_set_p_values(self, outputs: Sequence[RecordingOutput]) -> Float64Array:
        """Compute conformal p-values of recordings, see `OpenSetDetector.score`.

        Parameters
        ----------
        outputs : sequence of RecordingOutput
            What `predict_recordings` yields with `with_embeddings=True`.

        Returns
        -------
        ndarray of float64, shape (n_recordings,)
            0 to 1; below `open_set.rejection_rate` the player is called unknown. NaN
            for an unreadable recording.

        Raises
        ------
        InputError
            If the model has no references, no linear head, or no validation
            recordings.
        """
        head = self.head()
        check_open_set_ready(self.references, head)
        assert head is not None
        assert self.references is not None
        p_values = np.full(len(outputs), np.nan)
        readable, features = stack_embeddings(outputs)
        if len(readable):
            p_values[readable] = self.open_set.score(features, head, self.references)
        return p_values
