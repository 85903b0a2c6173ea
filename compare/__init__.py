"""`make compare`: the attacks of `cloister verify` in the sandboxes that a user could take instead.

Rule 1: the attack's code is that of src/cloister/verify/inside, the judge's that of verify/verdict.py. What is here
        makes the other sandboxes, as their own documentation recommends (configuration/), and shows what came of it.
Rule 2: what can be tried is tried, with its positive control. Only what a peer does not have is in peers.toml, with
        the reason.
Rule 3: everything happens in a laboratory (laboratory.py): network namespaces of its own, with an Internet that is a
        witness. Nothing of the machine's network, files and engines is touched.
"""
