"""The command line: a thin client of the HTTP API, and the server's start. Knows no use case."""
