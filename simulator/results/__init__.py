"""What came of a simulation: the allocation log, and all that is computed from it."""
