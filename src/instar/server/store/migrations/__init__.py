"""The history of the tables, step by step; run by Alembic. A step that was released never changes."""
