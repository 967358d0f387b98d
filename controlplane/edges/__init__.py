"""Every side effect of the control plane."""
