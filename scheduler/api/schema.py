"""The OpenAPI document. Clients are generated from it, so it includes request bodies, although routes parse these themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from tuttilab.scheduler.api.problems import MEDIA_TYPE
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.requests import (
    DagRequest,
    JobRequest,
    NotebookRequest,
    ProfileRequest,
    RenewRequest,
    RunRequest,
    SparkRequest,
)
from tuttilab.scheduler.domain.shape import AtMost

MOST_JOBS: Final = 10_000
"""In one batch."""
MOST_LOOSENED: Final = 10_000
"""Limits that one reload loosens."""
MOST_PARAMETERS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """Several submits in one commit: all or none. ``keys`` are their idempotency keys, one each."""

    jobs: Annotated[tuple[JobRequest, ...], AtMost(MOST_JOBS)]
    keys: Annotated[tuple[str, ...] | None, AtMost(MOST_JOBS)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownRequest:
    """Ends the local control plane as soon as no job is live. ``now``: all jobs are cancelled first."""

    now: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadRequest:
    """Takes up the configuration file. ``dry_run``: only say what would change. ``accept``: sentences of ``loosened`` to allow."""

    dry_run: bool = False
    accept: Annotated[tuple[str, ...], AtMost(MOST_LOOSENED)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRequest:
    """Parameters of the decision rule to set, all of them; none for the built-in rule. ``why``: what spoke for it."""

    values: Annotated[Mapping[str, bool | int | float | str], AtMost(MOST_PARAMETERS)]
    why: str = ""


_STRICT: Final[tuple[Any, ...]] = (BatchRequest, ReloadRequest, ShutdownRequest, TuneRequest)
for _request in _STRICT:
    # pydantic's documented hook for stdlib dataclasses, as in `wire`.
    _request.__pydantic_config__ = wire.STRICT

BODIES: Final = (
    JobRequest,
    BatchRequest,
    SparkRequest,
    wire.SparkRouteRequest,
    DagRequest,
    RunRequest,
    NotebookRequest,
    RenewRequest,
    ProfileRequest,
    ReloadRequest,
    ShutdownRequest,
    TuneRequest,
    wire.PodReport,
)
"""Every class that the body of a request may have."""

# `Any`: JSON as FastAPI has it.
Json = dict[str, Any]

PROBLEMS: Final[dict[int | str, Json]] = {
    "4XX": {"description": "What is wrong with the request.", "model": wire.Problem},
    "5XX": {"description": "What is wrong with the service.", "model": wire.Problem},
}


def takes(cls: type) -> Json:
    """The value of ``openapi_extra`` for a route whose body is a ``cls`` in JSON."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{cls.__name__}"}}}
    return {"requestBody": {"required": True, "content": content}}


def takes_bytes() -> Json:
    content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {"requestBody": {"required": True, "content": content}}


def install(app: FastAPI) -> None:
    def openapi() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _document(app: FastAPI) -> Json:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for cls in BODIES:
        schema = TypeAdapter(cls).json_schema(ref_template="#/components/schemas/{model}", mode="validation")
        schemas.update(schema.pop("$defs", {}))
        schemas[cls.__name__] = schema
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                if status in PROBLEMS:
                    # Whatever the route's own media type is.
                    response["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return dict(document)
