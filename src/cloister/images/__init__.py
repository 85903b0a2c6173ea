"""Container images for cloister's sandboxes: made from layers that are data, built by Docker or Podman."""
