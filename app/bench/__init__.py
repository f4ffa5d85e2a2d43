"""`errata bench`: how fast the server is on this machine, beside transformers' own generation in the same run.

Read in this order: timing, workload, models, contestants, crowded (many live edits), comparing and fitting
(the sections), report.
"""
