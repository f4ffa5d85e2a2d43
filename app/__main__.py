"""`errata`, and `python -m app` without an installed script."""

import sys


def main() -> None:
    """What the installed script calls. Ctrl-C is answered from the first import on."""
    try:
        from app.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("Stopped by Ctrl-C.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
