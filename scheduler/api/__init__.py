"""The REST API, one file a resource: parse a request, ask the service, answer.

Decisions do not belong here, nor does anything that a command-line user could not also reach.
"""

from tuttilab.scheduler.api.app import create_app

__all__ = ["create_app"]
