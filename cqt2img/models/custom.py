"""Backbones that users bring: their own `torch.nn.Module` behind timm's interface."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

import torch
from torch import nn

from cqt2img.errors import InputError
from cqt2img.models.architecture import (
    Architecture,
    TimmInterface,
    check_in_chans,
    describe_cause,
    find_input_statistics,
)


class FeatureClassifier(nn.Module):
    """A module that computes features, with a linear head and timm's interface.

    Parameters
    ----------
    module : Module
        Maps images `(n, in_chans, height, width)` to features `(n, n_features)`.
    num_features : int
        Number of features.
    num_classes : int
        Number of classes.
    """

    def __init__(self, module: nn.Module, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.module = module
        self.num_features = num_features
        # timm's layer-wise learning rates need the name of the head
        self.pretrained_cfg = {**find_input_statistics(module), "classifier": "head"}
        self.head = nn.Linear(num_features, num_classes)

    def get_classifier(self) -> nn.Linear:
        """Return the head.

        Returns
        -------
        Linear
            The head.
        """
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a new one.

        Parameters
        ----------
        num_classes : int
            Number of classes, 1 or more.
        """
        device = self.head.weight.device
        self.head = nn.Linear(self.num_features, num_classes, device=device)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the features of images.

        Parameters
        ----------
        images : Tensor of float32, shape (n, in_chans, height, width)
            Images.

        Returns
        -------
        Tensor of float32, shape (n, n_features)
            Features.
        """
        return self.module(images)

    def forward_head(
        self, features: torch.Tensor, pre_logits: bool = False
    ) -> torch.Tensor:
        """Compute logits from features.

        Parameters
        ----------
        features : Tensor of float32, shape (n, n_features)
            Result of `forward_features`.
        pre_logits : bool
            Whether to return the features unchanged.

        Returns
        -------
        Tensor of float32, shape (n, num_classes)
            Logits.
        """
        return features if pre_logits else self.head(features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the logits of images.

        Parameters
        ----------
        images : Tensor of float32, shape (n, in_chans, height, width)
            Images.

        Returns
        -------
        Tensor of float32, shape (n, num_classes)
            Logits.
        """
        return self.forward_head(self.forward_features(images))


def resolve_module(
    module: nn.Module, in_chans: int, size: tuple[int, int]
) -> Architecture:
    """Return the architecture of a user's module for tiles of one size.

    Parameters
    ----------
    module : Module
        See `adapt_module`.
    in_chans : {3, 1}
        Number of input channels.
    size : tuple of int
        Height and width of a tile in pixels.

    Returns
    -------
    Architecture
        Input of `create_backbone`.

    Raises
    ------
    InputError
        If `in_chans` is neither 1 nor 3.
    """
    check_in_chans(in_chans)
    return Architecture(
        name=type(module).__name__,
        make=partial(adapt_module, module, size=size),
        in_chans=in_chans,
        size=size,
        is_custom=True,
    )


def adapt_module(
    module: nn.Module, *, size: tuple[int, int], in_chans: int, num_classes: int
) -> nn.Module:
    """Copy a user's module and give it a new head and timm's interface.

    Parameters
    ----------
    module : Module
        Maps images `(n, in_chans, height, width)` to features `(n, n_features)`, or
        implements `TimmInterface`. It is not changed.
    size : tuple of int
        Height and width of the images in pixels.
    in_chans : {3, 1}
        Number of input channels.
    num_classes : int
        Number of classes.

    Returns
    -------
    Module
        A copy on the CPU in float32, in training mode; it implements `TimmInterface`.

    Raises
    ------
    InputError
        If the module cannot be copied, fails on images, or its output has a wrong
        shape.
    """
    name = type(module).__name__
    images = torch.zeros(2, in_chans, *size)
    with _errors_of_module(name, images):
        backbone = copy.deepcopy(module).cpu().float().eval()
        if isinstance(backbone, TimmInterface):
            backbone.reset_classifier(num_classes)
            _check_outputs(name, backbone, images, num_classes)
        else:
            n_features = _count_features(name, backbone, images)
            backbone = FeatureClassifier(backbone, n_features, num_classes)
        # as all other backbones; fails for kernels of three dimensions
        return backbone.to(memory_format=torch.channels_last).train()


def _count_features(name: str, module: nn.Module, images: torch.Tensor) -> int:
    with torch.no_grad():
        features = module(images)
    _check_shape(name, features, "features", (len(images), None))
    return features.shape[1]


def _check_outputs(
    name: str, backbone: nn.Module, images: torch.Tensor, n_classes: int
) -> None:
    network = cast(TimmInterface, backbone)
    with torch.no_grad():
        logits = backbone(images)
        features = network.forward_head(
            network.forward_features(images), pre_logits=True
        )
    _check_shape(name, logits, "logits", (len(images), n_classes))
    _check_shape(name, features, "features", (len(images), None))


def _check_shape(
    name: str, output: object, kind: str, expected: tuple[int, int | None]
) -> None:
    """Check that an output is a matrix with one row per image."""
    n_rows, n_columns = expected
    wanted = (
        f"({n_rows}, n_{kind})" if n_columns is None else f"({n_rows}, {n_columns})"
    )
    if not isinstance(output, torch.Tensor):
        found = f"an output of type {type(output).__name__}"
    else:
        found = f"an output of shape {tuple(output.shape)}"
        is_matrix = output.ndim == 2 and len(output) == n_rows and output.shape[1] > 0
        if is_matrix and n_columns in (None, output.shape[1]):
            return
    raise InputError(
        f"fit: backbone {name} must return {kind} of shape {wanted} for {n_rows} "
        f"images, got {found}. Pool and flatten its output, one row per image."
    )


@contextmanager
def _errors_of_module(name: str, images: torch.Tensor) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as err:  # the code is the user's and can raise anything
        cause = f"{type(err).__name__}: {describe_cause(err)}"
        raise InputError(
            f"fit: backbone {name} cannot be used with float images of shape "
            f"{tuple(images.shape)}: {cause}. Change the module, the spec or in_chans."
        ) from err
