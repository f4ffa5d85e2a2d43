"""The command line: a thin client of the HTTP API, and the server's start. Independent of the use cases."""
