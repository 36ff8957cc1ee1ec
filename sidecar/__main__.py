"""Starts the sidecar or the master of one pod: ``python -I -S …/sidecar/__main__.py POD_DIR/plan.json --lock-fd N``.

Run by path and without site-packages, because that is 30 ms faster than ``-m`` and needs nothing installed in the pod: `_boot`
registers the packages that the sidecar imports. Kept short, because a file that is run by path is compiled at each start.
"""

import sys


def _boot() -> None:
    here = __file__.rpartition("/")[0] or "."
    for name, folder in (("tuttilab", None), ("tuttilab.sidecar", here), ("tuttilab.scheduler", f"{here}/../scheduler")):
        module = type(sys)(name)
        module.__path__ = [folder] if folder else []
        sys.modules[name] = module


if __name__ == "__main__":
    if not __package__:
        _boot()
    from tuttilab.sidecar.start import main

    main(sys.argv[1:])
