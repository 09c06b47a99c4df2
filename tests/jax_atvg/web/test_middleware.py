"""What is refused before a request is read."""

import asyncio
import base64

import pytest

pytest.importorskip("gradio", reason="requirements/web.txt")
import fastapi
from starlette.testclient import TestClient

from jax_atvg.web import middleware
from jax_atvg.web.middleware import Guard


@pytest.fixture
def app():
    """It tells how many bytes it was sent, wherever."""
    app = fastapi.FastAPI()
    app.add_middleware(Guard, password="geheim ü", megabytes=1)

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def count(request: fastapi.Request) -> int:
        return len(await request.body())

    return app


def basic(words):
    return "Basic " + base64.b64encode(words.encode()).decode()


def blocks(count):
    """A body of so many MB, whose length is not known before."""
    return (bytes(10**6) for _ in range(count))


def test_a_body_may_have_two_files_and_not_much_more(app):
    client = TestClient(app)
    for body, count in ((bytes(3_000_000), 3_000_000), (blocks(3), 3_000_000)):
        assert client.post("/here", content=body).json() == count
    for body in (bytes(3_000_001), blocks(4)):
        answer = client.post("/here", content=body)
        assert answer.status_code == 413
        assert answer.json()["detail"] == (
            "the request is larger than 3 MB; a file may have 1 MB"
        )


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/animate", "/live"])
def test_strangers_are_asked_for_the_password(app, path):
    client = TestClient(app)
    assert client.get("/other").status_code == 200
    for given in (
        *("", "Basic", "Basic !", "Bearer x", basic("atvg:geheim")),
        basic("other:geheim ü"),
    ):
        answer = client.get(path, headers={"authorization": given})
        assert answer.status_code == 401
        assert answer.json() == {"detail": "wrong name or password"}
        assert answer.headers["www-authenticate"].startswith("Basic ")
    right = {"authorization": basic("atvg:geheim ü")}
    assert client.get(path, headers=right).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=https://example.org/face.png",
        "/gradio_api/file=HTTP://example.org/face.png",
        "/gradio_api/file/http://example.org/face.png",
        "/gradio_api/file=http%3A//example.org/face.png",
    ],
)
def test_files_of_other_servers_are_not_fetched(app, path):
    answer = TestClient(app).get(path)
    assert answer.status_code == 403 and "upload them" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "length", "code"),
    [("/api/animate", b"10", 401), ("/here", b"3000001", 413)],
)
def test_a_refusal_reads_nothing(app, path, length, code):
    sent = []

    async def receive():
        raise AssertionError

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-length", length)],
    }
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == code


def test_without_a_password_nobody_is_asked():
    app = middleware.Guard(fastapi.FastAPI(), "", 1)
    assert TestClient(app).get("/api").status_code == 404
