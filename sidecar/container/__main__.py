"""Starts ``prepare``, ``member`` or ``master``: ``python3 -I -S …/sidecar/container/__main__.py WHAT PLAN_FILE``.

Run by path and without site-packages, as the room above is; `_boot` registers the packages that are imported.
"""

import sys


def _boot() -> None:
    here = __file__.rpartition("/")[0] or "."
    own = f"{here}/.."
    for name, folder in (("tuttilab", None), ("tuttilab.sidecar", own), ("tuttilab.sidecar.container", here)):
        module = type(sys)(name)
        module.__path__ = [folder] if folder else []
        sys.modules[name] = module


if __name__ == "__main__":
    if not __package__:
        _boot()
    from tuttilab.sidecar.container.start import main

    main(sys.argv[1:])
