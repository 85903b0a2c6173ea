"""A filtered SSH agent for the sandbox."""
