"""Requests, files and words that are almost right: valid ones are made from a schema or given, then changed at random by a seed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from typing import Any, Final

SEED: Final = int(os.environ.get("TUTTILAB_ATTACK_SEED") or 15)
"""Of all rounds; `make attack SEED=7` takes another one. A round that fails is named by it and its number."""
DEEPEST: Final = 6
TEXTS: Final = (
    "",
    " ",
    "\0",
    "a\0b",
    "\u202e\u2066x",
    "\x1b]52;c;eA==\x07",
    "../../../../etc/passwd",
    "/etc/passwd",
    "..",
    "%2e%2e%2f",
    "%00",
    "${HOME}",
    "${${x}}",
    "$(id)",
    "`id`",
    "'; drop table jobs; --",
    "<script>alert(1)</script>",
    "javascript:alert(1)",
    "-rf",
    "--",
    "last",
    "root",
    "NaN",
    "1e400",
    "0x10",
    "٣",
    "ﬀ",
    "\ud7ff\uffff",
    "😀" * 300,
    "a" * 5000,
    "9" * 400,
    "1" + "0" * 25 + "Gi",
    "-1s",
    "1.5.5",
    "\r\nX-Other: 1",
    "0" * 64,
    "a" * 64,
)
NUMBERS: Final = (0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 0.1, -0.0, 1e308, 5e-324)
OTHERS: Final[tuple[Any, ...]] = (None, True, False, [], {}, [[]], {"": ""}, [None], [{}], {"a": {"a": {}}})
_NUMBERS_OF_FILES: Final = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def rounds(seed: int, count: int) -> Iterator[random.Random]:
    for number in range(count):
        yield random.Random(f"{SEED}.{seed}.{number}")


class Maker:
    """Makes valid instances of the schemas of an OpenAPI document."""

    def __init__(self, document: Mapping[str, Any], chance: random.Random) -> None:
        self._schemas = document.get("components", {}).get("schemas", {})
        self._chance = chance

    def instance(self, schema: Mapping[str, Any], depth: int = 0) -> Any:
        chance = self._chance
        if "$ref" in schema:
            return self.instance(self._schemas[schema["$ref"].rsplit("/", 1)[1]], depth)
        for word in ("anyOf", "oneOf", "allOf"):
            if word in schema:
                return self.instance(chance.choice(schema[word]), depth)
        if "enum" in schema:
            return chance.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        if "default" in schema and chance.random() < 0.5:
            return schema["default"]
        match schema.get("type"):
            case "object":
                return self._object(schema, depth)
            case "array":
                most = 0 if depth > DEEPEST else chance.randrange(3)
                return [self.instance(schema.get("items", {}), depth + 1) for _ in range(most)]
            case "integer":
                return chance.randrange(10)
            case "number":
                return chance.choice((0, 1, 0.5))
            case "boolean":
                return chance.random() < 0.5
            case "null":
                return None
            case _:
                return chance.choice(("a", "train", "100m", "64Mi", "5s", "true", "worker"))

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        needed = schema.get("required", ())
        share = 0.5 if depth < DEEPEST else 0.0
        made = {
            name: self.instance(inner, depth + 1)
            for name, inner in schema.get("properties", {}).items()
            if name in needed or self._chance.random() < share
        }
        more = schema.get("additionalProperties")
        if isinstance(more, dict) and depth < DEEPEST:
            made.update({f"k{number}": self.instance(more, depth + 1) for number in range(self._chance.randrange(3))})
        return made


def hostile(chance: random.Random) -> Any:
    return chance.choice((*TEXTS, *NUMBERS, *OTHERS))


def changed(value: Any, chance: random.Random) -> Any:
    """A copy with one place changed: another value there, a key or an element more or less, twice or of another name."""
    if chance.random() < 0.3 or not isinstance(value, (dict, list)) or not value:
        return hostile(chance)
    if isinstance(value, list):
        at = chance.randrange(len(value))
        match chance.randrange(4):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value + [value[at]] * chance.choice((1, 2, 300))
            case _:
                return [*value[:at], changed(value[at], chance), *value[at + 1 :]]
    name = chance.choice(list(value))
    match chance.randrange(5):
        case 0:
            return {key: inner for key, inner in value.items() if key != name}
        case 1:
            return {**value, chance.choice(TEXTS): hostile(chance)}
        case 2:
            return {chance.choice(TEXTS) if key == name else key: inner for key, inner in value.items()}
        case _:
            return {**value, name: changed(value[name], chance)}


def changed_bytes(content: bytes, chance: random.Random) -> bytes:
    """A copy with a few places changed: bytes turned, numbers set, pieces cut out, doubled or moved, or the end cut off."""
    made = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(made) + 1)
        size = min(chance.choice((1, 2, 4, 8, 64, 512)), max(len(made) - at, 0))
        match chance.randrange(7):
            case 0 if size:
                made[at] ^= 1 << chance.randrange(8)
            case 1:
                made[at : at + 4] = chance.choice(_NUMBERS_OF_FILES).to_bytes(4, chance.choice(("little", "big")))
            case 2:
                del made[at : at + size]
            case 3:
                made[at:at] = made[at : at + size] * chance.choice((1, 2, 100))
            case 4:
                del made[at:]
            case 5:
                made[at : at + size] = chance.randbytes(size)
            case _:
                made[at:at] = chance.choice(TEXTS).encode("utf-8", "surrogatepass")
    return bytes(made)
