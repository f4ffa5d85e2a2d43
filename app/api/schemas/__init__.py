"""The bodies of requests and answers. A request's body must be exactly as described; an answer's body names every
field."""
