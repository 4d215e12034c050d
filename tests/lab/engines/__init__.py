"""Container engines inside a lab host: how each is configured, started and asked whether it is ready."""
