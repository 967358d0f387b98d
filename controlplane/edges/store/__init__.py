"""The durable store: the event log, decisions, checkpoints and the lease, in SQL.

The only package that knows SQLAlchemy, alembic and the database drivers. ``store.Store`` is the
way in; ``writer.GroupCommitWriter`` is the one door through which anything is written while a
control plane runs; ``tail.EventTail`` is where the loop gets its events.
"""
