"""What would become of a cluster's jobs if something were changed: played, and nothing touched."""
