"""The routes, one file for each subject. The `routes` of each file makes a router for a service: no app, no globals."""
