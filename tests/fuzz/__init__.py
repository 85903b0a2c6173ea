"""Every parser of bytes that somebody else chooses, with inputs that nobody chose.

In `make check` a fixed, bounded set of examples; in `make fuzz` new ones for longer.
"""
