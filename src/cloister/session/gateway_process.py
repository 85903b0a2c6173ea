"""The session's end of the gateway, which is a process of its own (`gateway_child.py`).

Rule 1: it lives as long as the control socket is open at this end: see docs/architecture.md.
"""

from __future__ import annotations

import os

from cloister.errors import GatewayError
from cloister.lean import json, signal, socket, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.sandbox.plan import Plan
    from cloister.session.question import Question

_STOP_TIMEOUT_S = 2.0
_STOP_ELSEWHERE_S = 6.0
_PINGS_TO_ALARM = 3
PACKET_BYTES = 1 << 16
ELSEWHERE = b"\1"  # gateway_child.py's


class Gateway:
    """A forked gateway: its pid, our end of its control socket, the read end of its CA bundle.

    `ready` once it has said that it serves; `failure` if it has said why it does not.
    """

    def __init__(self, pid: int, control: int, ca_bundle: int) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.control = socket.socket(fileno=control)
        self.ca_bundle = ca_bundle
        self.ready = False
        self._unanswered = 0
        self.failure = ""
        self.holder_failure = ""  # of a gateway in a container: the holder's connection ends there
        self.stop_s = _STOP_TIMEOUT_S
        self.question: Question | None = None

    def answer(self) -> None:
        """Pass on what the user has typed."""
        if self.question is None:
            return
        allowed = self.question.answer()
        if allowed is not None:
            message = {"op": "answer", "name": self.question.name, "allowed": allowed}
            with suppress(OSError):
                self.control.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)
            self.question = None

    def begin(
        self,
        *,
        sandbox_id: str,
        plan: Plan,
        audit_path: str,
        public_directory: str,
        host_roots: str | None,
        untrusted: list[str],
        outpost: Mapping[str, object] | None = None,
    ) -> None:
        """Say what to serve. It announces itself with {"op": "ready"} once it does. GatewayError if it is dead.

        `outpost`: how its container is run, where it is to run in one (outpost/near.py).
        """
        self.stop_s = _STOP_TIMEOUT_S if outpost is None else _STOP_ELSEWHERE_S
        try:
            self._send_paths(plan, public_directory, host_roots, elsewhere=outpost is not None)
            self._send_orders(
                plan,
                {
                    "sandbox": sandbox_id,
                    "audit": audit_path,
                    "untrusted": untrusted,
                    "control": f"{public_directory}.sock",
                    **({} if outpost is None else {"outpost": outpost}),
                },
            )
        except OSError as error:
            raise self.died("it ended before it served") from error

    def listen(self, entry: dict[str, object], listener: socket.socket) -> None:
        """Pass a listening socket of ours on. GatewayError if it is dead."""
        try:
            message = json.dumps({"op": "listen", "sockets": [entry]}).encode()
            socket.send_fds(self.control, [message], [listener.fileno()])
        except OSError as error:
            raise self.died("it ended before it served") from error

    def died(self, what: str) -> GatewayError:
        """The error that says why: in the gateway's own words if it left any."""
        self.read(lambda _: None)
        return GatewayError(
            "the gateway could not start, and without it there is no sandbox",
            details=self.failure or what,
            resolution="CLOISTER_DEBUG=1 shows more",
        )

    def has_ended(self) -> bool:
        """Whether the process is gone, or has said that it cannot serve and is about to go."""
        self.read(lambda _: None)
        return bool(self.failure) or _wait(self.pidfd, 0)

    def _send_paths(
        self, plan: Plan, public_directory: str, host_roots: str | None, *, elsewhere: bool
    ) -> None:
        upstream = plan.get("upstream_ca")
        paths = [public_directory, host_roots or "", *(upstream if isinstance(upstream, list) else [])]
        self.control.send((ELSEWHERE if elsewhere else b"") + os.fsencode("\0".join(paths)))

    def _send_orders(self, plan: Plan, message: dict[str, object]) -> None:
        descriptor = os.memfd_create("cloister-plan", os.MFD_CLOEXEC)  # a plan may be larger than a packet
        with open(descriptor, "wb") as file:
            file.write(json.dumps(plan).encode())
            file.flush()
            os.lseek(descriptor, 0, os.SEEK_SET)
            socket.send_fds(self.control, [json.dumps(message).encode()], [descriptor])

    def ping(self, tell: Callable[[str], None]) -> None:
        """Ask whether the gateway still serves; tell once if it has not for a while."""
        self._unanswered += 1
        if self._unanswered == _PINGS_TO_ALARM:
            tell("ALARM: the gateway does not answer; nothing leaves the sandbox until it does")
        with suppress(OSError):
            self.control.send(b'{"op": "ping"}', socket.MSG_DONTWAIT)

    def read(self, tell: Callable[[str], None]) -> bool:
        """Take one message of the gateway, if there is one; False at its end."""
        try:
            packet = self.control.recv(PACKET_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except (
            ConnectionResetError
        ):  # it ended with a packet of ours unread; what it said before may still be here
            try:
                packet = self.control.recv(PACKET_BYTES, socket.MSG_DONTWAIT)
            except OSError:
                return False
        if not packet:
            return False
        message = json.loads(packet)
        match message["op"]:
            case "ready":
                self.ready = True
            case "pong":
                if self._unanswered >= _PINGS_TO_ALARM:
                    tell("the gateway answers again")
                self._unanswered = 0
            case "failed":
                self.failure = message["text"]
            case "holder-ended":
                self.holder_failure = message["text"]
            case "tell":
                tell(message["text"])
            case "alarm":
                tell(f"ALARM: {message['text']}")
            case "ask":
                from cloister.session.question import Question  # seldom anything is asked

                self.question = Question.put(message["name"], message["text"], tell)
            case "settled" if self.question is not None and self.question.name == message["name"]:
                self.question.close()
                self.question = None
        return True


def dismiss(gateway: Gateway) -> None:
    """Tell the gateway to end: one that never served has nothing to write down and is killed. Idempotent."""
    if gateway.control.fileno() < 0:
        return
    gateway.read(lambda _: None)
    if gateway.ready:
        with suppress(OSError):  # without this word it takes us for dead, and looks for what we left
            gateway.control.send(b'{"op": "end"}', socket.MSG_DONTWAIT)
    gateway.control.close()
    if not gateway.ready:
        _kill(gateway)


def stop(gateway: Gateway) -> None:
    """End the gateway, with time to write its last audit lines, and wait for that. Idempotent."""
    dismiss(gateway)
    if gateway.pidfd < 0:
        return
    if gateway.ready and not _wait(gateway.pidfd, gateway.stop_s):
        _kill(gateway)
    with suppress(ChildProcessError):
        os.waitpid(gateway.pid, 0)
    os.close(gateway.pidfd)
    gateway.pidfd = -1


def _kill(gateway: Gateway) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(gateway.pidfd, signal.SIGKILL)


def _wait(pidfd: int, timeout_s: float) -> bool:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))
