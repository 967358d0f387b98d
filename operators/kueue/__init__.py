"""Kueue: jobs with a queue name of its are run only while it has admitted them."""
