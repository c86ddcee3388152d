"""Progress bars in a terminal or a notebook."""

import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

Step = TypeVar("Step")


class Progress(Protocol):
    """Callable that shows the progress of an iterator, such as `progress_bar`."""

    def __call__(self, steps: Iterator[Step], n: int, title: str, /) -> Iterator[Step]:
        """Return an iterator over the same steps."""


def progress_bar(steps: Iterator[Step], n: int, title: str) -> Iterator[Step]:
    """Show the progress of an iterator in a terminal or a notebook.

    Parameters
    ----------
    steps : iterator
        The steps.
    n : int
        Number of steps.
    title : str
        Text in front of the bar.

    Returns
    -------
    iterator
        The same steps.
    """
    return iter(make_bar(n, title, iterable=steps, leave=False))


def make_bar(n: int, title: str, **options: object) -> "tqdm":
    """Make a progress bar that is hidden unless in a terminal or a notebook.

    Parameters
    ----------
    n : int
        Number of steps.
    title : str
        Text in front of the bar.
    **options : object
        Further options of tqdm.

    Returns
    -------
    tqdm
        The bar.
    """
    is_notebook = "ipykernel" in sys.modules
    options.setdefault("disable", False if is_notebook else None)  # None: if no tty
    return import_tqdm()(total=n, desc=title, **options)


def import_tqdm() -> "type[tqdm]":
    """Import tqdm without the warning that the widgets of notebooks are missing.

    Without them it writes text. timm and librosa import tqdm as well, so that this is
    called before they are imported.

    Returns
    -------
    type
        The class for the current environment.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tqdm.auto import tqdm
    return tqdm
