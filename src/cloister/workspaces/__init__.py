"""Workspaces that are not the project itself, the way there and back, and the host's git that takes it."""
