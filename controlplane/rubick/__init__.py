"""Rubick's policy and performance model (MLSys 2025): pure, and widened to all of our plans."""
