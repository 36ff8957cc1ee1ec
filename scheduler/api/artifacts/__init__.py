"""Artifacts over HTTP: the routes, and a separate process that transfers the bytes of big artifacts."""
