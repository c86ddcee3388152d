"""Digests of named tensors, by which networks are recognised."""

from collections.abc import Iterable, Iterator
from itertools import chain

import torch

from cqt2img._utils.hashing import hash_bytes


def hash_tensors(named: Iterable[tuple[str, torch.Tensor]], prefix: str = "") -> str:
    """Compute the SHA-256 digest of tensors and their names.

    Parameters
    ----------
    named : iterable of (str, Tensor)
        Names and tensors on any device, such as the items of a state dict.
    prefix : str
        Text that the digest depends on, too.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    return hash_bytes(chain([prefix.encode()], _parts(named)))


def _parts(named: Iterable[tuple[str, torch.Tensor]]) -> Iterator[bytes]:
    for name, value in named:
        yield name.encode()
        yield value.detach().cpu().contiguous().numpy().tobytes()
