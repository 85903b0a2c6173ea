"""What runs in an environment that has inspect-ai (tests/e2e/test_inspect.py makes it); not collected here."""
