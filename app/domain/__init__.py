"""Errata's domain in plain Python: edits, the events that change them, and the ledger that folds events. No torch, no
I/O, no clock."""
