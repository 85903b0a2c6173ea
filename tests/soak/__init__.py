"""Soak: mixed traffic through live sandboxes while everything around them is killed; see `__main__.py`."""
