"""Judges of credentials: placeholders, injection, redaction, signatures, pushes. No I/O."""
