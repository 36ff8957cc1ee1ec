"""Make README's picture of the sidebar, docs/images/sidebar.png, anew: the one that the browser test takes in the light theme."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "images" / "sidebar.png"
LIMIT_BYTES = 200_000


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-q", "tests/e2e/lab/test_looks.py", "-k", "themes and Light"]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "TUTTILAB_PICTURES": folder})
        picture = Path(folder) / "sidebar-light.png"
        if done.returncode != 0 or not picture.exists():
            print("The picture was not made; see the test above.")
            return 1
        if picture.stat().st_size >= LIMIT_BYTES:
            print(f"The picture has {picture.stat().st_size} bytes; a README should load fast, so at most {LIMIT_BYTES}.")
            return 1
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
