"""The clients that run in the sandboxes. Only what a sandbox has may be imported: the standard library and the clients' packages."""
