"""cloister: a sandbox for AI coding agents. No exit, no secrets, no planting."""

__version__ = "0.1.0"
PLAN_FORMAT = 1  # of plan.json: config/compile.py writes it, sandbox/plan.py reads it
