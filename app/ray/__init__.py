"""Replicas of the server in a Ray cluster: a Serve application, and one replica of it."""
