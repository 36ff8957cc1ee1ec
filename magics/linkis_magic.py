"""``%load_ext tuttilab.magics.linkis_magic``: the names of LinkisMagic. The package `linkis` has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Registers the names beside those of `tuttilab.magics`, which it loads where they are missing."""
    from tuttilab.magics.linkis.load import load

    load(ipython)


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """Removes them; `%%spark` and `%%sparksql` are those of `tuttilab.magics` again."""
    from tuttilab.magics.linkis.load import unload

    unload(ipython)
