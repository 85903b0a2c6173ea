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
    """Answers `POST /v1/messages` with FIRST, and with SECOND once `go_on` is set; all else is not found."""

    def __init__(self, authority: Authority, key: str) -> None:
        super().__init__(authority, NAME, respond=self._api)
        self.go_on = threading.Event()
        self.streamed: list[Request] = []
        self._key = key

    def _api(self, request: Request) -> Answer:
        if request.headers.get("x-api-key") != self._key:
            return _error(401, "authentication_error", "invalid x-api-key")
        if request.method != "POST" or request.path.partition("?")[0] != "/v1/messages":
            return _error(404, "not_found_error", "Not found")
        asked = json.loads(request.body)
        if not asked.get("stream"):
            return Answer(
                headers={"Content-Type": "application/json"}, body=json.dumps(_message(asked)).encode()
            )
        self.streamed.append(request)
        return Answer(headers={"Content-Type": "text/event-stream"}, body=self._events(asked))

    def _events(self, asked: dict[str, object]) -> Iterator[bytes]:
        yield _event("message_start", message={**_message(asked), "content": [], "stop_reason": None})
        yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": FIRST})
        self.go_on.wait(DEADLINE_S)
        yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": SECOND})
        yield _event("content_block_stop", index=0)
        yield _event(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": 4},
        )
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
