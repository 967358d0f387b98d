"""``Queue`` and ``ClusterPolicy``: objects of the cluster as a whole, which become settings."""
