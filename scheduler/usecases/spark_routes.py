"""Where a user's Spark session is, for the proxy that relays to it."""

from __future__ import annotations

import hmac

from tuttilab.scheduler.domain.errors import Conflict, Forbidden, NotFound, Unauthenticated
from tuttilab.scheduler.domain.requests import Who
from tuttilab.scheduler.domain.wire import SparkRouteView
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.usecases.spark_sessions import SparkSessions


class NotTheProxy(Unauthenticated):
    """Told apart from the refusal of a user's token, which the proxy passes on."""

    type = "not-the-proxy"


def check_proxy(service: Service, token: str) -> None:
    """Raises NotTheProxy."""
    if not hmac.compare_digest(token.encode(), service.secrets.proxy_token().encode()):
        raise NotTheProxy(
            "This is not the token of the Spark proxy; an admin gives it spark-proxy-token of the control plane's state folder."
        )


def route_to(service: Service, who: Who, name: str, job_id: str) -> SparkRouteView:
    """Raises NotFound without a live session of that name, or when it is another job by now; Conflict while it is not ready.

    Who names the job was connected to it when it was ready: if it is not now, it is being started again, and what was asked lost.
    """
    if who.is_viewer:
        raise Forbidden(f"{who.name} may read and change nothing, and so runs nothing on Spark.")
    try:
        view = SparkSessions(service).endpoint(name, who)
    except Conflict as error:
        if job_id:
            raise NotFound(f"The Spark session {name!r} was lost and is being started again.") from error
        raise
    if job_id not in ("", view.job_id):
        raise NotFound(f"The Spark session {name!r} has ended, and another of that name was started since.")
    return SparkRouteView(owner=who.name, job_id=view.job_id, host=view.host, port=view.port, token=view.token)
