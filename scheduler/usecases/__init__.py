"""Requests to the service, one module per object: jobs, DAGs, Spark sessions, notebooks, profiles, pod reports, idempotency keys.

Belongs here: the steps of one request, from parsed values to a turn of the loop. Does not belong here: HTTP (`api`), identity.
"""
