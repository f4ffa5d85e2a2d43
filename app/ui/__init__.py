"""The pages for people who correct, rendered by the server over the same service and rules as the API."""
