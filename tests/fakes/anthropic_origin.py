"""The Messages API as Claude Code uses it: one streamed answer, which stops in the middle until the test goes on.

The shapes are those of https://docs.anthropic.com/en/docs/build-with-claude/streaming.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

from tests.fakes.origins import Authority
from tests.fakes.web_origin import DEADLINE_S, Answer, Request, WebOrigin

NAME = "api.anthropic.com"
FIRST, SECOND = "The sandbox ", "holds."


class AnthropicOrigin(WebOrigin):
    """Answers `POST /v1/messages` of whoever brings `header`: `commands` first, one a turn, for the agent's tool Bash.

    Then FIRST, and SECOND once `go_on` is set. All else is not found. Every answer reflects the header's value `key`.
    """

    def __init__(
        self, authority: Authority, *, header: tuple[str, str], key: str, commands: tuple[str, ...] = ()
    ) -> None:
        super().__init__(authority, NAME, respond=self._api)
        self.go_on = threading.Event()
        self.streamed: list[Request] = []
        self._header = header
        self._key = key
        self._commands = commands

    def _api(self, request: Request) -> Answer:
        name, value = self._header
        if request.headers.get(name) != value:
            return _error(401, "authentication_error", "invalid x-api-key")
        reflected = {"Request-Id": f"req_{self._key}", "Content-Type": "application/json"}
        if request.method != "POST" or request.path.partition("?")[0] != "/v1/messages":
            return _error(404, "not_found_error", f"{self._key} finds nothing here")
        asked = json.loads(request.body)
        if not asked.get("stream"):
            return Answer(headers=reflected, body=json.dumps(_message(asked)).encode())
        self.streamed.append(request)
        done = request.body.count(b'"tool_result"')
        has_shell = any(tool.get("name") == "Bash" for tool in asked.get("tools", ()))
        events = (
            self._use(asked, done)
            if has_shell and done < len(self._commands)
            else self._say(asked, wait=has_shell)
        )
        return Answer(headers=reflected | {"Content-Type": "text/event-stream"}, body=events)

    def _begin(self, asked: dict[str, object]) -> Iterator[bytes]:
        yield _event("message_start", message={**_message(asked), "content": [], "stop_reason": None})
        yield _event("ping", you_sent=self._key)

    def _use(self, asked: dict[str, object], turn: int) -> Iterator[bytes]:
        yield from self._begin(asked)
        block = {"type": "tool_use", "id": f"toolu_{turn}", "name": "Bash", "input": {}}
        yield _event("content_block_start", index=0, content_block=block)
        text = json.dumps({"command": self._commands[turn], "description": "work"})
        for part in (text[:10], text[10:]):
            yield _event(
                "content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": part}
            )
        yield _event("content_block_stop", index=0)
        yield from _end("tool_use")

    def _say(self, asked: dict[str, object], *, wait: bool) -> Iterator[bytes]:
        yield from self._begin(asked)
        yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": FIRST})
        if wait:
            self.go_on.wait(DEADLINE_S)
        yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": SECOND})
        yield _event("content_block_stop", index=0)
        yield from _end("end_turn")


def _end(reason: str) -> Iterator[bytes]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    yield _event("message_delta", delta=delta, usage={"output_tokens": 4})
    yield _event("message_stop")


def _message(asked: dict[str, object]) -> dict[str, object]:
    return {
        "id": "msg_01cloister",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [{"type": "text", "text": FIRST + SECOND}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 4},
    }


def _event(kind: str, **more: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


def _error(status: int, kind: str, text: str) -> Answer:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": text}}).encode()
    return Answer(status=status, headers={"Content-Type": "application/json"}, body=body)
