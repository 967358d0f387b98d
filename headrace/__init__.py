"""Headrace's public package: what enters a user's or a job's environment."""
