"""Whether the panel's catalogues have every string of its code and settings, and no other; `--list` prints what is missing.

A catalogue is `jupyter_ext/locale/LANGUAGE/LC_MESSAGES/tuttilab.json`: gettext's JSON, as Lab reads it. Text of settings stands
under its context, as Lab looks it up. Standard library only.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "labextension" / "src"
SETTINGS = ROOT / "labextension" / "schema"
CATALOGUES = ROOT / "jupyter_ext" / "locale"
CALL = re.compile(r"\b_?trans\s*\.__\(\s*('(?:[^'\\]|\\.)*')", re.DOTALL)
CONTEXT = "\u0004"


def main(arguments: list[str]) -> int:
    wanted = texts_of_code() | texts_of_settings()
    is_good = True
    for path in sorted(CATALOGUES.glob("*/LC_MESSAGES/tuttilab.json")):
        catalogue: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        has = {text for text, found in catalogue.items() if text and found[0]}
        placeholders = [text for text in wanted & has if set(marks(text)) != set(marks(catalogue[text][0]))]
        for what, found in (("lacks", wanted - has), ("has needlessly", has - wanted), ("has other placeholders in", placeholders)):
            if found:
                is_good = False
                shown = sorted(found) if "--list" in arguments else sorted(found)[:5]
                print(f"{path.relative_to(ROOT)} {what} {len(found)} texts: {json.dumps(shown, ensure_ascii=False)}")
    return 0 if is_good else 1


def texts_of_code() -> set[str]:
    found = set()
    for path in sorted(SOURCES.rglob("*.ts*")):
        for literal in CALL.findall(path.read_text(encoding="utf-8")):
            inner = literal[1:-1].replace("\\'", "'").replace("\\n", "\n")
            found.add(inner)
    return found


def texts_of_settings() -> set[str]:
    found = set()
    for path in sorted(SETTINGS.glob("*.json")):
        schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found |= {f"schema{CONTEXT}{schema[key]}" for key in ("title", "description")}
        found.add(f"settings{CONTEXT}{schema['jupyter.lab.setting-icon-label']}")
        for setting in schema["properties"].values():
            found |= {f"settings{CONTEXT}{setting[key]}" for key in ("title", "description")}
    return found


def marks(text: str) -> list[str]:
    return re.findall(r"%\d", text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
