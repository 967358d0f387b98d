"""The model families: modules that know their stages and splits, and nothing of ranks."""
