"""The program that attacks from within a sandbox, on the sandbox's Python; it comes through standard input.

Rule 1: standard library only, and nothing of cloister: what goes in is these modules as one text (program.py), without
        their imports of each other. So a name is defined once among all of them.
Rule 2: it does not judge. One JSON line a probe: what was tried, what happened ("got"). The host (verdict.py) judges,
        and looks itself where it can: an attack carries a mark, `attack-<id>-…`, that a witness outside would see.
Rule 3: whatever happens, a probe ends, and so does the program: every wait has a time-out.

`CONFIG` is what the host sends: names, ports, addresses and paths; never a secret.
"""
