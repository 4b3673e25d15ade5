"""What the ports of a host answer to somebody who has no token: `python tests/chaos/ports.py ADDRESS PORT...`.

Needs nothing of this project, so that it can be run from a host of its own. Prints a line of JSON: by port, what it
said to each of several questions.
"""

# ruff: noqa: T201  a command line

from __future__ import annotations

import json
import socket
import sys
import urllib.error
import urllib.request

import grpc

# Questions that would tell or do something, of every service of Ray's. Each takes an empty message.
GRPC = (
    "/ray.rpc.InternalKVGcsService/InternalKVGet",
    "/ray.rpc.JobInfoGcsService/AddJob",
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.NodeManagerService/GetSystemConfig",
    "/ray.rpc.ObjectManagerService/Push",
    "/ray.rpc.CoreWorkerService/PushTask",
    "/ray.rpc.ReporterService/GetTraceback",
    "/ray.rpc.RayletDriver/Init",
)
HTTP = (
    "/api/jobs/",
    "/api/job_agent/jobs/",
    "/get_or_create_runtime_env",
    "/api/cluster_status",
    "/nodes?view=summary",
    "/metrics",
)
WAIT_S = 10.0
# Somebody without the token was turned away; or no such service is there, or none that speaks this.
REFUSED = {"UNAUTHENTICATED", "401", "403"}
NOTHING_THERE = {"UNIMPLEMENTED", "404", "405", "closed"}


def ask(address: str, port: int) -> dict[str, str]:
    """What a port says to each question: the names of gRPC's statuses, or HTTP's numbers; "OK" where it answers."""
    if _speaks_http(address, port):
        return {question: _http(f"http://{address}:{port}{question}") for question in HTTP}
    with grpc.insecure_channel(f"{address}:{port}") as channel:
        return {question: _grpc(channel, question) for question in GRPC}


def _speaks_http(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=WAIT_S) as asked:
            asked.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return asked.recv(5) == b"HTTP/"
    except OSError:
        return False


def _http(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except OSError:
        return "closed"


def _grpc(channel: grpc.Channel, question: str) -> str:
    try:
        channel.unary_unary(question)(b"", timeout=WAIT_S)
    except grpc.RpcError as error:
        code = error.code().name
        return "closed" if code == "UNAVAILABLE" else code
    return "OK"


if __name__ == "__main__":
    print(json.dumps({port: ask(sys.argv[1], int(port)) for port in sys.argv[2:]}))
