"""Clerks that fetch credentials' values: one small module per source, and the leases that keep them fresh."""
