"""`python -m app.cli`: the command where no script is installed, or where a process of this very code is started."""

from app.__main__ import main

main()
