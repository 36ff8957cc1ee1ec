"""LinkisMagic registers its magics when this module is imported in IPython; so does this one."""

from IPython.core.getipython import get_ipython

from tuttilab.magics.linkis_magic import load_ipython_extension, unload_ipython_extension

__all__ = ["load_ipython_extension", "unload_ipython_extension"]

_shell = get_ipython()
if _shell is not None:
    load_ipython_extension(_shell)
