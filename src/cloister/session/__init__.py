"""One sandbox from its start to its end: the process that the user sees as `cloister run`."""
