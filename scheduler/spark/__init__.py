"""Spark sessions: settings, Java, and the Spark Connect server that is the main process of a session's pod.

A session is a job like any other. Does not belong here: its quota, queue and phases, which are in `core`.
"""
