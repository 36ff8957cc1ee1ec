"""Migrations of the database schema, run by Alembic.

Only schema changes belong here; old journal bodies are never re-interpreted.
"""
