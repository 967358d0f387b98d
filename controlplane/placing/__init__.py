"""Where jobs can go: what is left of the accelerators, who goes first, how a job is laid out.

What every policy needs to say where a job should run, and nothing about which job that is.
"""
