"""Checks `sidecars` of `tuttilab.yaml`: containers that jobs may have beside the user's, and what a job may set of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from tuttilab.scheduler.config.file import ParamFile, SideCarFile
from tuttilab.scheduler.config.kubernetes import image_of
from tuttilab.scheduler.core.sidecars import TYPES, Param, SideCarOffer
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.resources import CPU, GPU, MEMORY, Resources, parse_cpu, parse_memory

TAKEN_PORTS: Final = (15990, 29500)
"""Of the pod's own probes, and of frameworks between the members of a gang."""

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,48}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_REFERENCE = re.compile(r"\$(\$|\(([^)]*)\))")


def sidecars_of(files: Sequence[SideCarFile]) -> tuple[SideCarOffer, ...]:
    """Raises BadInput naming the key."""
    found: list[SideCarOffer] = []
    for index, file in enumerate(files):
        where = f"sidecars[{index}]"
        offer = _offer(file, where)
        for other in found:
            if other.name == offer.name:
                raise BadInput(f"{where}.name: {offer.name!r} stands there twice; expected each name once.")
            if offer.port is not None and offer.port == other.port:
                raise BadInput(f"{where}.port: {offer.port} is that of {other.name!r}, and a job may have both; expected another.")
        found.append(offer)
    return tuple(found)


def _offer(file: SideCarFile, where: str) -> SideCarOffer:
    if not _NAME.fullmatch(file.name):
        raise BadInput(f"{where}.name: {file.name[:80]!r} is not a name; expected up to 50 lower-case letters, digits and '-'.")
    if file.port is not None and (not 1024 <= file.port <= 65535 or file.port in TAKEN_PORTS):
        raise BadInput(
            f"{where}.port: {file.port} cannot be used; expected 1024 to 65535, and none of {', '.join(map(str, TAKEN_PORTS))}."
        )
    for name in [*file.params, *file.env]:
        if not _VARIABLE.fullmatch(name) or name.startswith("TUTTILAB_"):
            key = "params" if name in file.params else "env"
            raise BadInput(f"{where}.{key}: {name[:80]!r} is no variable's name; expected letters, digits and underscores.")
    for name in file.params:
        if name in file.env:
            raise BadInput(f"{where}.env.{name}: it is a parameter too; expected each name once.")
    for key, text in [*((f"command[{at}]", word) for at, word in enumerate(file.command)), *file.env.items()]:
        place = f"{where}.{key}" if key.startswith("command[") else f"{where}.env.{key}"
        for match in _REFERENCE.finditer(text):
            if match[1] != "$" and match[2] not in file.params:
                raise BadInput(
                    f"{place}: {match[0]} names no parameter; expected one of params ({', '.join(file.params) or 'none'}), or "
                    f"$${match[0][1:]} for the text itself."
                )
    for key in (CPU, MEMORY, GPU):
        if key in file.resources:
            expected = f"use the side-car's own key {'cpus' if key == CPU else key!r} for this" if key != GPU else "leave it out"
            raise BadInput(f"{where}.resources.{key}: {expected}.")
    own = {CPU: parse_cpu(file.cpus, f"{where}.cpus"), MEMORY: parse_memory(file.memory, f"{where}.memory")}
    for key, given in ((CPU, file.cpus), (MEMORY, file.memory)):
        if not own[key]:
            raise BadInput(f"{where}.{'cpus' if key == CPU else key}: {given!r} is none at all; expected more than 0.")
    return SideCarOffer(
        name=file.name,
        image=image_of(file.image, f"{where}.image"),
        resources=Resources.of(own) + Resources.parse(file.resources, f"{where}.resources"),
        command=file.command,
        env=dict(file.env),
        port=file.port,
        shares_folder=file.shared_folder,
        params={name: _param(param, f"{where}.params.{name}") for name, param in file.params.items()},
    )


def _param(file: ParamFile, where: str) -> Param:
    if file.type not in TYPES:
        raise BadInput(f"{where}.type: {file.type!r} is not known; expected one of {', '.join(TYPES)}.")
    is_number = file.type in ("integer", "number")
    for key, given in (("minimum", file.minimum), ("maximum", file.maximum)):
        if given is not None and not is_number:
            raise BadInput(f"{where}.{key}: it goes with integer and number; expected no such key with {file.type}.")
    if file.pattern is not None and file.type != "string":
        raise BadInput(f"{where}.pattern: it goes with string; expected no such key with {file.type}.")
    try:
        re.compile(file.pattern or "")
    except re.error as error:
        raise BadInput(f"{where}.pattern: {file.pattern!r} is no regular expression ({error}).") from error
    bare = Param(type=file.type)
    bounds = Param(
        type=file.type,
        enum=tuple(bare.read(value, f"{where}.enum[{at}]") for at, value in enumerate(file.enum)),
        minimum=file.minimum,
        maximum=file.maximum,
        pattern=file.pattern,
    )
    if file.default is None:
        return bounds
    default = bounds.read(file.default, f"{where}.default")
    return Param(
        type=bounds.type, default=default, enum=bounds.enum, minimum=bounds.minimum, maximum=bounds.maximum, pattern=bounds.pattern
    )
