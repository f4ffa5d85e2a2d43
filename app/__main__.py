"""`errata`, and `python -m app` without an installed script."""

import sys


def main() -> None:
    """The entry point of the installed script. Ctrl-C is answered from the first import on."""
    try:
        from app.cli.main import app

        app()
    except KeyboardInterrupt:
        sys.stderr.write("Stopped by Ctrl-C.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
