"""Strict YAML for configuration and manifests: no duplicate keys, no dates, only finite numbers, errors with their line.

`wire.parse` checks the types of the result.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import isfinite
from typing import Any, Final

import yaml

from tuttilab.scheduler.domain.errors import BadInput

MAX_INTEGER: Final = 2**63 - 1
"""Largest integer: the range of a database column, far above any real amount."""
MOST_REPEATED: Final = 2**22
"""Characters that aliases may stand for: nine lines of nested aliases can stand for more than any memory holds."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that also refuses duplicate keys (an error in YAML; PyYAML takes the last one) and numbers out of range."""

    # Any, here and below: the types of the base class.
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
            value = super().construct_object(node, deep)
        except (ValueError, OverflowError, LookupError, TypeError, AttributeError):
            # A tag such as `!!int` on a text, or a number of thousands of digits.
            raise _refusal(node, f"{_shown(node)} is too large or not of its type") from None
        if isinstance(value, float) and not isfinite(value):
            raise _refusal(node, f"{_shown(node)} is no finite number")
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise _refusal(node, f"{_shown(node)} is too large a number")
        return value


def _shown(node: yaml.Node) -> str:
    text = str(node.value) if isinstance(node, yaml.ScalarNode) else node.tag
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _refusal(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _check_aliases(root: yaml.Node) -> None:
    """Raises ConstructorError where aliases contain themselves, or stand for too much once they are written out."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()
    repeated = 0

    def size_of(node: yaml.Node) -> int:
        nonlocal repeated
        known = sizes.get(id(node))
        if known is not None:
            repeated += known
            if repeated > MOST_REPEATED:
                raise _refusal(node, f"aliases repeat this until there are more than {MOST_REPEATED} characters of it")
            return known
        if id(node) in open_nodes:
            raise _refusal(node, "it contains itself by an alias")
        open_nodes.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            size = len(node.value)
        else:
            size = sum(size_of(part) for item in node.value for part in (item if isinstance(item, tuple) else (item,)))
        open_nodes.remove(id(node))
        sizes[id(node)] = size + 1
        return size + 1

    size_of(root)


# No implicit timestamps: `day: 2026-11-22` is meant as text, and JSON, into which everything is converted, has no dates.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def documents(text: str, what: str) -> list[object]:
    """The non-empty documents of the text. Raises BadInput with the line where it is not valid YAML."""
    found: list[object] = []
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                break
            _check_aliases(node)
            document = loader.construct_document(node)
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
    """The only document of the text, or None if it is empty. Raises BadInput for several documents and for invalid YAML."""
    found = documents(text, what)
    if len(found) > 1:
        raise BadInput(f"{what}: it holds {len(found)} documents; expected one, without `---` between parts.")
    return found[0] if found else None
