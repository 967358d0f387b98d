"""The ``headrace`` command. Modules load what they need when a command runs, so help is fast."""
