"""The editors: how an edit is learned, and what it does in the forward pass. Knows torch, not slots, logs or HTTP.

To add an editor: one folder here with a class that satisfies `base.Editor`, one line in `registry.EDITORS`, one row in
docs/editors.md.
"""
