"""alembic's entry: runs the migrations on the connection that `schema` hands over, or writes them out for a DBA to run."""

from alembic import context

if context.is_offline_mode():
    context.configure(dialect_name="mysql", dialect_opts={"paramstyle": "named"})
else:
    connection = context.config.attributes["connection"]
    # MySQL commits at every DDL statement, whatever is asked.
    context.configure(connection=connection, transactional_ddl=connection.dialect.name == "sqlite")
context.run_migrations()
