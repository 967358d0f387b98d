"""Workloads: jobs that ask for accelerators and plans of measured models, read or drawn."""
