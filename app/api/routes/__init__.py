"""The routes, one file a subject. Each file's `routes` makes a router around a service: no app, no globals."""
