"""YAML as people write it, read strictly: no key twice, no date where text was meant, errors with their line.

For configuration and manifests alike. Types are the business of `wire.parse`, which sees the result.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from tuttilab.scheduler.errors import BadInput


class _Loader(yaml.SafeLoader):
    """The safe loader, but a key that stands twice is an error (YAML says so, PyYAML takes the last)."""

    # Any: the base class says so.
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands there twice", key.start_mark)
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


# `day: 2026-11-22` is text to whoever writes it, and JSON, which everything becomes, has no dates.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def documents(text: str, what: str) -> list[object]:
    """Every document of the text that is not empty. Raises BadInput with the line where it is no YAML."""
    loader = _Loader(text)
    found: list[object] = []
    try:
        while loader.check_data():  # type: ignore[no-untyped-call]  # the stubs have no type for it
            document = loader.get_data()
            if document is not None:
                found.append(document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise BadInput(f"{what}{where}: {error.problem}; mend the YAML there.") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise BadInput(f"{what}: it is not YAML ({' '.join(str(error).split())}).") from None
    finally:
        loader.dispose()
    return found
