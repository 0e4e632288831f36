"""Types of the API. Written by sdk/generate."""
