"""What Alembic runs to bring the tables up to date, in the transaction that it is handed."""

from alembic import context

# The name under which Alembic runs this file; imported under another it does nothing.
if __name__ == "env_py":
    context.configure(connection=context.config.attributes["connection"])
    context.run_migrations()
