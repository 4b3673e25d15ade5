"""What every request has to pass before anything reads it: who asks, by which name, and how much it brings."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# Whoever has not sent a request's body by then is hung up on.
BODY_TIMEOUT_S = 30.0
_OPEN_TO_ALL = ("/health",)


class Guard:
    """Refuses what may not come in, in one form: `{"error": ..., "faults": [...]}`.

    Args:
        application: who answers the rest.
        token: what every request but `/health` must bring as `Authorization: Bearer ...`; None asks for none.
        hosts: the names that a request may call this server by, so that a page in a browser that made its own name lead
            here is refused; None takes any.
        most_bytes: of a body. One that says it is larger is refused before it is read.
        told: hears of the status of each answer.
    """

    def __init__(
        self,
        application: Application,
        *,
        token: str | None,
        hosts: Sequence[str] | None,
        most_bytes: int,
        told: Callable[[int], None],
    ) -> None:
        self._application = application
        self._token = token
        self._hosts = hosts
        self._most_bytes = most_bytes
        self._told = told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._application(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        body = b""
        if refusal is None:
            try:
                body = await asyncio.wait_for(self._body(receive), BODY_TIMEOUT_S)
            except _TooLargeError:
                refusal = self._too_large()
            except TimeoutError:
                refusal = 408, f"the body must be sent within {BODY_TIMEOUT_S:.0f} seconds"
            except ConnectionError:
                return  # whoever asked has gone
        if refusal is not None:
            status, fault = refusal
            self._told(status)
            await _answer(send, status, fault)
            return
        given = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive_again() -> Message:
            return next(given, None) or await receive()

        async def send_and_tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._told(message["status"])
            await send(message)

        await self._application(scope, receive_again, send_and_tell)

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if self._hosts is not None and _without_port(host) not in self._hosts:
            return 421, f"the server must be called by one of {', '.join(self._hosts)}, but got {host[:80]!r}"
        if self._token is not None and scope["path"] not in _OPEN_TO_ALL:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._token.encode()):
                return 401, "the request must have the header Authorization: Bearer TOKEN, with the server's token"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._most_bytes:
            return self._too_large()
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if scope["method"] == "POST" and kind != b"application/json":
            return 415, "the body must be JSON, with the header Content-Type: application/json"
        return None

    def _too_large(self) -> tuple[int, str]:
        return 413, f"the body must have at most {self._most_bytes:,} bytes; send the texts in several requests"

    async def _body(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._most_bytes:
                raise _TooLargeError
            if not message.get("more_body", False):
                return b"".join(parts)


class _TooLargeError(Exception):
    """A body turned out larger than it may be."""


async def _answer(send: Send, status: int, fault: str) -> None:
    content = json.dumps({"error": fault, "faults": [fault]}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),  # what is left of the body is not read
        *([(b"www-authenticate", b"Bearer")] if status == 401 else []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
