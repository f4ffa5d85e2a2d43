"""`python -m app.cli`: the command without an installed script, or in a subprocess that runs this very code."""

from app.__main__ import main

main()
