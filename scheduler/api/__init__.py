"""The REST API, one module per resource: parses a request, calls a use case, writes the response.

Does not belong here: decisions, and anything that a command-line user could not also reach.
"""

from tuttilab.scheduler.api.app import create_app

__all__ = ["create_app"]
