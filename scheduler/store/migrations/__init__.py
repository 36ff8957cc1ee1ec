"""The database schema's history, run by Alembic.

Only schema changes belong here; old journal bodies are never re-interpreted.
"""
