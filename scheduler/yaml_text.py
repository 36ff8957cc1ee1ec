"""YAML as people write it, read strictly: no key twice, no date where text was meant, no endless number, errors with their line.

For configuration and manifests alike. Types are the business of `wire.parse`, which sees the result.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import isfinite
from typing import Any, Final

import yaml

from tuttilab.scheduler.errors import BadInput

LARGEST: Final = 2**63 - 1
"""Of whole numbers: what a database column holds, and far above any amount that is meant."""


class _Loader(yaml.SafeLoader):
    """The safe loader, but a key that stands twice is an error (YAML says so, PyYAML takes the last); so is an endless number."""

    # Any: the base class says so, here and below.
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key.value, str):
                if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                    raise _refusal(key, f"the key {key.value!r} stands there twice")
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            made = super().construct_object(node, deep)
        except (ValueError, OverflowError, LookupError, TypeError, AttributeError):
            # A tag that says `!!int` of a text, or a number of thousands of digits.
            raise _refusal(node, f"{_shown(node)} is too large or not of its type") from None
        if isinstance(made, float) and not isfinite(made):
            raise _refusal(node, f"{_shown(node)} is no finite number")
        if isinstance(made, int) and abs(made) > LARGEST:
            raise _refusal(node, f"{_shown(node)} is too large a number")
        return made


def _shown(node: yaml.Node) -> str:
    text = str(node.value) if isinstance(node, yaml.ScalarNode) else node.tag
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _refusal(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


# `day: 2026-11-22` is text to whoever writes it, and JSON, which everything becomes, has no dates.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def documents(text: str, what: str) -> list[object]:
    """Every document of the text that is not empty. Raises BadInput with the line where it is no YAML."""
    found: list[object] = []
    try:
        loader = _Loader(text)
        while loader.check_data():  # type: ignore[no-untyped-call]  # the stubs have no type for it
            document = loader.get_data()
            if document is not None:
                found.append(document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise BadInput(f"{what}{where}: {error.problem}; mend the YAML there.") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{what}: it is not YAML ({' '.join(str(error).split())}).") from None
    except RecursionError:
        raise BadInput(f"{what}: it is nested too deeply to be read; expected a few levels.") from None
    return found


def document(text: str, what: str) -> object:
    """The one document of the text, None where it is empty. Raises BadInput for several, and where it is no YAML."""
    found = documents(text, what)
    if len(found) > 1:
        raise BadInput(f"{what}: it holds {len(found)} documents; expected one, without `---` between parts.")
    return found[0] if found else None
