"""What is refused before the body of a request is read."""

import base64
import re
import secrets

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

USER = "atvg"  # the name that goes with the password
# What gradio does not ask the password for itself.
PRIVATE = re.compile(r"/(api|live)(/|$)")
REMOTE = re.compile(r"/file[=/]+https?:", re.IGNORECASE)


class Guard:
    """ASGI middleware: refuses visitors without the password, bodies that are too
    large, and gradio's offer to fetch files from other servers.

    password: of PRIVATE, for the name USER; "": nobody is asked.  megabytes: of one
    file; a body may hold two, and a little more.
    """

    def __init__(self, app: ASGIApp, password: str, megabytes: int):
        self.app, self.megabytes = app, megabytes
        self.most = (2 * megabytes + 1) * 10**6
        words = f"{USER}:{password}".encode()
        self.expected = base64.b64encode(words) if password else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if REMOTE.search(scope["path"]):
            answer = refusal(403, "files of other servers are not fetched; upload them")
        elif PRIVATE.match(scope["path"]) and not self.knows(headers):
            answer = refusal(401, "wrong name or password")
            answer.headers["WWW-Authenticate"] = (
                'Basic realm="jax_atvg", charset="UTF-8"'
            )
        else:
            length = headers.get("content-length", "0")
            await self.app(scope, self.limited(receive, length), send)
            return
        await answer(scope, receive, send)

    def knows(self, headers: Headers) -> bool:
        scheme, _, words = headers.get("authorization", "").partition(" ")
        given = words.strip().encode() if scheme.lower() == "basic" else b""
        return not self.expected or secrets.compare_digest(given, self.expected)

    def limited(self, receive: Receive, length: str) -> Receive:
        """The same, of a body of at most self.most bytes.  HTTPException 413: it is
        larger.  length: the body's, as its header says, which need not be true."""
        declared = int(length) if length.isdecimal() else 0
        left = self.most
        too_large = HTTPException(
            413,
            f"the request is larger than {self.most // 10**6} MB; a file may have "
            f"{self.megabytes} MB",
        )

        async def receive_within() -> Message:
            nonlocal left
            if declared > self.most:
                raise too_large
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise too_large
            return message

        return receive_within


def refusal(code: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, code)
