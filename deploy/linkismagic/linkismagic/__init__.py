"""The name `linkismagic`, answered by tuttilab."""

from tuttilab.magics.linkis_magic import load_ipython_extension, unload_ipython_extension

__all__ = ["load_ipython_extension", "unload_ipython_extension"]
