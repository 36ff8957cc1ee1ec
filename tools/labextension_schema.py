"""Write labextension/src/model/schema.ts, the panel's types, from the API's own description; `--check` only says if it is stale.

Run it after a change of the API's views: `.venv/bin/python tools/labextension_schema.py`.
"""

import json
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from tuttilab.scheduler.api import create_app
from tuttilab.scheduler.config.model import Limits
from tuttilab.scheduler.identity.auth import LocalAuthenticator
from tuttilab.scheduler.service.loop import Service

ROOT = Path(__file__).resolve().parent.parent
EXTENSION = ROOT / "labextension"
TARGET = EXTENSION / "src" / "model" / "schema.ts"
READ = (
    "JobList",
    "QueueView",
    "ClusterView",
    "LogView",
    "EventView",
    "RunView",
    "DagView",
    "IdentityView",
    "DetailsView",
    "ShownListView",
    "UsageView",
)
"""What the panel reads of the API; what these are made of comes along."""
HEAD = "// Made from the API's description by tools/labextension_schema.py: do not edit, run that again.\n\n"


def main(arguments: list[str]) -> int:
    if not (EXTENSION / "node_modules").is_dir():
        print("labextension/node_modules is not there; run `python labextension/build.py --install` first.")
        return 1
    fresh = HEAD + types_of(description())
    if "--check" not in arguments:
        TARGET.write_text(fresh, encoding="utf-8")
        return 0
    if TARGET.read_text(encoding="utf-8") == fresh:
        return 0
    print("labextension/src/model/schema.ts is older than the API; run `.venv/bin/python tools/labextension_schema.py`.")
    return 1


def description() -> dict[str, Any]:
    """What the panel may read, as an OpenAPI document. Routes and views alone decide it, so no service has to run."""
    service = SimpleNamespace(config=SimpleNamespace(host_names=("127.0.0.1",), limits=Limits()), folders=())
    document = create_app(cast(Service, service), LocalAuthenticator("unused", "nobody")).openapi()
    schemas = document["components"]["schemas"]
    wanted: dict[str, Any] = {}
    queue = list(READ)
    for name in queue:
        if name not in wanted:
            wanted[name] = plain(schemas[name])
            queue += re.findall(r"#/components/schemas/(\w+)", json.dumps(schemas[name]))
    return {"openapi": "3.1.0", "info": {"title": "tuttilab", "version": ""}, "paths": {}, "components": {"schemas": wanted}}


def plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Names, types and what a view says of itself. The service leaves out no field, so each is there."""
    properties = {
        name: {key: value for key, value in field.items() if key not in ("title", "default")}
        for name, field in schema["properties"].items()
    }
    return {"type": "object", "description": schema.get("description", ""), "properties": properties, "required": list(properties)}


def types_of(document: dict[str, Any]) -> str:
    node_command = runpy.run_path(str(EXTENSION / "build.py"))["node_command"]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "openapi.json"
        source.write_text(json.dumps(document), encoding="utf-8")
        command = node_command("openapi-typescript", str(source), "--default-non-nullable", "false", "--alphabetize")
        done = subprocess.run(command, cwd=EXTENSION, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
