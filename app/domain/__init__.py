"""Errata in plain Python: edits, the events that change them, the ledger that folds events. No torch, I/O or clock."""
