"""`errata bench`: measures the server's speed on this machine, next to transformers' own generation in the same run.

Reading order: timing, workload, budget (fitting a run into a time limit), models, contestants, comparing (alternating
rounds), decoding, editing and fitting (the sections), crowded (many live edits), sections, report.
"""
