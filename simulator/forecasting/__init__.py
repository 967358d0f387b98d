"""When jobs of a live cluster start and end: its policy, played forward over sampled run times."""
