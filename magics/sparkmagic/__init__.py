"""The names of sparkmagic, so that its notebooks run unedited: `%load_ext tuttilab.magics.sparkmagic`.

Sessions are those of `%spark`; there is no Livy, so endpoints, users and passwords in a line are not used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Registers the names beside those of `tuttilab.magics`, which it loads where they are missing."""
    from tuttilab.magics.sparkmagic.load import load

    load(ipython)


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """Removes them; `%%spark` and `%spark` are those of `tuttilab.magics` again."""
    from tuttilab.magics.sparkmagic.load import unload

    unload(ipython)
