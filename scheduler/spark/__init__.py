"""Spark sessions: what a session is made of, and the proxy that authenticates and routes Spark Connect.

A session is a job like any other: its quota, queue and life belong to `core`, not here.
"""
