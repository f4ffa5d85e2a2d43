"""`errata bench`: how fast the server is on this machine, beside transformers' own generation in the same run.

Read in this order: timing, workload, budget (how a run fits a time), models, contestants, comparing (rounds by turns),
decoding, editing and fitting (the sections), crowded (many live edits), sections, report.
"""
