"""What the host tries itself, with commands of ours in projects of the verification's own: names, kills, limits, git.

Rule 1: each probe runs in a process of its own, forked from the one that verifies, as a user's command would be, and
        says what it has found as inside/ does: one line of JSON, then the last one.
Rule 2: its commands have the user's home, engine and environment, and a state and a configuration of their own: nothing
        of the user's is stopped, cleaned up or changed.
Rule 3: a plain program of the host never runs on what a sandbox has written; where a control needs one, the host writes
        the same thing itself.
"""
