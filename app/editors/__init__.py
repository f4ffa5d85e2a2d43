"""The editors: how an edit is learned, and what it does in the forward pass. Knows torch, not slots, logs or HTTP.

Adding an editor takes one folder here whose `PRESETS` build classes that satisfy `base.Editor`, one line in
`registry.EDITORS`, and one row in the table of app/docs/editors.md.
"""
