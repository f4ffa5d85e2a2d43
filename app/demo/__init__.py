"""The demonstration model: tables of facts, the text made from them, the build and the check."""
