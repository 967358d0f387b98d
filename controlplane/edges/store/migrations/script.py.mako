"""${message}."""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Goes on from the revision before. Add the revision to ``schema.REVISIONS``."""
    ${upgrades if upgrades else "pass"}
