"""`python -m app` is `errata`, without an installed script."""

from app.cli.main import main

if __name__ == "__main__":
    main()
