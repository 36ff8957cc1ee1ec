"""Turns a cell into a job: finds and pickles its names, builds the bundle and the request; `%%submit` and its Python API.

Belongs here: everything up to the submit. Does not belong here: waiting for the job and its results (`jobs`).
"""
