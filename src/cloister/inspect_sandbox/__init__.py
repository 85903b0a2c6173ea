"""cloister as a sandbox of inspect-ai (`cloister[inspect]`): `sandbox="cloister"`, or `("cloister", "cloister.toml")`.

    sample_init ──▶ cloister up        one kept sandbox for each sample, in a project of its own
    exec, files ──▶ cloister exec      through pipes; a file is read and written from within, never by the host
    sample_cleanup ▶ cloister rm       with its home, its workspace and all that was recorded of it

Rule 1: an evaluation is reproducible: the user's own configuration does not count, what the task names does.
Rule 2: nothing is allowed by absence: without a configuration the sandbox is offline.
Rule 3: the host follows no path that the sandbox made.
"""
