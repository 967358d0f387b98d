"""The built-in trainer: the same losses on any number of ranks.

Batch, data order, learning rates and initialisation are functions of the manifest alone; the
execution plan only says who computes which part. ``python -m headrace.workloads.training`` runs it
under plain ``torchrun``.
"""
