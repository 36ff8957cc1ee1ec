"""Link the folders below .types/tuttilab as they are imported, because type checkers cannot follow an editable install.

Then `mypy .types/tuttilab` sees `scheduler/domain/model.py` as `tuttilab.scheduler.domain.model`.
"""

import configparser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / ".types" / "tuttilab"


def main() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    TREE.mkdir(parents=True, exist_ok=True)
    for old in TREE.iterdir():
        old.unlink()
    for line in config["options"]["package_dir"].split("\n"):
        if line:
            package, folder = (side.strip() for side in line.split("="))
            (TREE / package.removeprefix("tuttilab.")).symlink_to(Path("..") / ".." / folder)


if __name__ == "__main__":
    main()
