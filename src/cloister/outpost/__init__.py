"""The gateway in a container of the engine: its half there, the half on the host, and what passes between them."""
