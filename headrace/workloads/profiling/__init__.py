"""Measures plans of a model on the accelerators of this machine, in one process group.

``torchrun --nproc-per-node=2 --max-restarts=24 -m headrace.workloads.profiling MODEL`` does so; it
needs torch and transformers alone. `headrace profile` starts it.
"""
