"""Run a module of this package in another Python process."""

import os
import sys


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module.

    The current folder is not on the path of the new process, so that a `json.py` there
    is not executed in place of the one in the standard library.

    Parameters
    ----------
    module : str
        Full name of the module.
    *arguments : str
        Arguments on its command line.

    Returns
    -------
    list of str
        The command; start it in the environment of `module_environment`.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment(**variables: str) -> dict[str, str]:
    """Return an environment in which the new process imports from the same folders.

    Parameters
    ----------
    **variables : str
        Defaults of further variables.

    Returns
    -------
    dict of str
        Environment of this process, with its `sys.path` as `PYTHONPATH`.
    """
    # An empty entry is the current folder, which a console or a notebook has.
    folders = [entry or os.curdir for entry in sys.path]
    return {**variables, **os.environ, "PYTHONPATH": os.pathsep.join(folders)}
