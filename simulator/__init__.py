"""The same loop in virtual time: hours of cluster life in milliseconds."""
