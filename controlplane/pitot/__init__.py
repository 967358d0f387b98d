"""Pitot predicts run times with bounds that hold (MLSys 2025): pure, and numpy alone to predict."""
