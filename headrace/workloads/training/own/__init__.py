"""Training code of the user's own: a model, data and a step, given by a script."""
