"""One process a node: owns Ray there, runs what the control plane assigns."""
