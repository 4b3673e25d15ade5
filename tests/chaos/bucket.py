"""An S3 server that can go away and come back with all that it holds."""

from __future__ import annotations

import os
import threading
from typing import Any

from tests.object_store import KEYS, ObjectStore, in_turn, make_listener


class Bucket:
    """A bucket on the loopback interface, on one port for its whole life."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        os.environ.update(KEYS)  # this process reads from it too
        self._application = in_turn(DomainDispatcherApplication(create_backend_app))
        self._port = 0
        self._server: Any = None
        self.come_back()
        self._create()

    @property
    def is_away(self) -> bool:
        return self._server is None

    def uri(self, path: str) -> str:
        return ObjectStore(f"127.0.0.1:{self._port}").uri(path)

    def leave(self) -> bool:
        """Refuse all connections; False where it is away already."""
        if self._server is None:
            return False
        server, self._server = self._server, None
        server.shutdown()
        server.server_close()
        self._thread.join()
        return True

    def come_back(self) -> None:
        if self._server is None:
            self._server = make_listener(self._application, self._port)
            self._port = self._server.server_port
            self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
            self._thread.start()

    def close(self) -> None:
        self.leave()

    def _create(self) -> None:
        import boto3

        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self._port}")
        client.create_bucket(Bucket="sweeps")
        client.close()
