"""What every operator needs of Kubernetes: requests, watches, a queue of keys, a leader."""
