"""Try things at random, in a few lanes at once, until told to stop.

    python3 -m inside.main LIFE SEED LANES DIRECTORY [ONLY …]

Standard input: "pause" (finish what is in hand and close every client; answered by "paused"), "go", and "end" or its end.
A lane's trials are a function of seed, life and lane alone; how many it gets to is not.
"""

from __future__ import annotations

import random
import socket
import sys
import threading

from . import places, raw, web
from .notebook import Notebook

TRIALS = {**web.TRIALS, **raw.TRIALS}
Weighted = dict[str, tuple[int, web.Trial]]


class Runner(threading.Thread):
    """One lane."""

    def __init__(self, notebook: Notebook, seed: str, number: int, trials: Weighted) -> None:
        super().__init__(daemon=True)
        self._rng = random.Random(f"{seed}/{notebook.life}/{number}")
        self._name = f"{notebook.life}-{number}"
        self._trials = trials
        self._lane = web.Lane(notebook=notebook, rng=self._rng)
        self.go = threading.Event()
        self.resting = threading.Event()
        self.go.set()

    def run(self) -> None:
        names = sorted(self._trials)
        weights = [self._trials[name][0] for name in names]
        count = 0
        while True:
            if not self.go.is_set():
                self._lane.close()
                self.resting.set()
                self.go.wait()
            count += 1
            (kind,) = self._rng.choices(names, weights)
            # A trial has a generator of its own: one that fails early does not change those after it.
            self._lane.rng = random.Random(self._rng.random())
            self._try(kind, f"{self._name}-{count}")

    def _try(self, kind: str, trial: str) -> None:
        lane = self._lane
        lane.trial, lane.detail = trial, ""
        lane.notebook.begin(trial, kind)
        try:
            outcome = self._trials[kind][1](lane)
            detail = lane.detail
        except Exception as error:
            outcome, detail = "failed", f"{type(error).__name__}: {error} ({lane.kind})"
        if outcome in ("failed", "aborted"):
            lane.close()
        lane.notebook.end(trial, outcome, detail)


def serve() -> None:
    """A server of the sandbox's, for its published port: turns round what it gets."""
    try:
        listener = socket.create_server(("127.0.0.1", places.SERVED_PORT))
    except OSError:
        return  # another life in the same sandbox serves already

    def talk(connection: socket.socket) -> None:
        try:
            with connection:
                data = bytearray()
                while part := connection.recv(1 << 16):
                    data += part
                connection.sendall(data[::-1])
        except OSError:
            return

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=talk, args=(connection,), daemon=True).start()


def main() -> None:
    life, seed, lanes, directory, *only = sys.argv[1:]
    notebook = Notebook(directory, life)
    trials = {name: entry for name, entry in TRIALS.items() if not only or name in only}
    runners = [Runner(notebook, seed, number, trials) for number in range(int(lanes))]
    threading.Thread(target=serve, daemon=True).start()
    for runner in runners:
        runner.start()
    print("ready", flush=True)
    for line in sys.stdin:
        if line == "end\n":
            return
        for runner in runners:
            if line == "pause\n":
                runner.resting.clear()
                runner.go.clear()
            else:
                runner.go.set()
        if line == "pause\n":
            for runner in runners:
                runner.resting.wait()
            print("paused", flush=True)


if __name__ == "__main__":
    main()
