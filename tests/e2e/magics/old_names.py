"""The wheel that answers to `linkismagic`, built for a test."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3] / "deploy" / "linkismagic"


def linkismagic_wheel(folder: Path) -> Path:
    """A folder below ``folder`` with the wheel unpacked, as `pip install --target` makes it."""
    shutil.copytree(SOURCE, folder / "source")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(folder / "source")]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("tuttilab_linkismagic-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"
