"""Services: containers beside the sandbox, reached by name and port through the gateway."""
