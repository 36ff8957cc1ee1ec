"""The snippets of docs/guides/hub.md, which the hub of these tests runs with."""

import re
from pathlib import Path

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "hub.md"
CONTROL_URL = "http://127.0.0.1:9321"
HUB_API = "http://127.0.0.1:8081/hub/api"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
