"""An S3 server on this machine, which takes one request after the other: conditions hold as they do on a real one."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass(frozen=True)
class ObjectStore:
    """Where the server listens. There is one bucket."""

    host: str

    def uri(self, path: str, *, bucket: str = "sweeps") -> str:
        return f"s3://{bucket}/{path}?scheme=http&endpoint_override={self.host}&region=us-east-1"


class _OneAtATime:
    """Reads what a client sends before it lets it in: one that stops in the middle holds nobody up."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        length = environ.get("CONTENT_LENGTH")
        in_chunks = environ.get("wsgi.input_terminated", False)
        body = environ["wsgi.input"].read() if in_chunks else environ["wsgi.input"].read(int(length or 0))
        whole = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        whole.pop("HTTP_TRANSFER_ENCODING", None)
        with self._lock:
            return list(self._application(whole, start_response))


def in_turn(application: Any) -> Any:
    """A WSGI application that takes one request after the other."""
    return _OneAtATime(application)


def make_listener(application: Any, port: int = 0) -> Any:
    """A server of it on the loopback interface that says nothing of its requests."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            """Requests are nobody's concern."""

    return make_server("127.0.0.1", port, application, threaded=True, request_handler=Quiet)


@contextlib.contextmanager
def refusing() -> Iterator[ObjectStore]:
    """An object store that knows nobody's key, for a block."""
    words = "The AWS Access Key Id you provided does not exist in our records."
    body = f"<?xml version='1.0'?><Error><Code>InvalidAccessKeyId</Code><Message>{words}</Message></Error>".encode()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    server = make_listener(application)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield ObjectStore(f"127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def serving_with_keys() -> Iterator[ObjectStore]:
    """`serving`, with `KEYS` in the environment for as long: what a module's tests share."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        with serving() as store:
            yield store


@contextlib.contextmanager
def serving() -> Iterator[ObjectStore]:
    """An empty object store for a block. The environment must hold `KEYS` for its clients."""
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    server = make_listener(in_turn(DomainDispatcherApplication(create_backend_app)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    host = f"127.0.0.1:{server.server_port}"
    try:
        client = boto3.client("s3", endpoint_url=f"http://{host}")
        client.create_bucket(Bucket="sweeps")
        client.close()
        yield ObjectStore(host)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
