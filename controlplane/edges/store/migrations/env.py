"""Where alembic starts. ``schema.migrate`` gives it an open connection, in a transaction."""

from alembic import context

from controlplane.edges.store.schema import VERSION_TABLE
from controlplane.edges.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
