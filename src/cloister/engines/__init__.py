"""Container engines, as whoever runs or builds with one finds them."""
