"""cloister: a sandbox for AI coding agents. No exit, no secrets, no planting."""

__version__ = "0.1.0"
PLAN_FORMAT = 3
