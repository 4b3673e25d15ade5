"""What the server answers, to whom, and what it refuses: asked as a server asks an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from orchestrator.serving import guard
from orchestrator.serving.application import Limits, make_application
from orchestrator.serving.batching import Batcher, BusyError, EndedError
from orchestrator.serving.server import access_faults, is_loopback, listen, serve
from trainables.faults import FaultsError, unknown_name

TOKEN = "a token of some length"
JSON = {"content-type": "application/json", "host": "127.0.0.1:1234"}


@dataclass
class Parrot:
    """A bank of two adapters that say how long a text is, and note the batches they are asked for."""

    batches: list[int] = field(default_factory=list)
    takes_s: float = 0.0
    backbone: Any = field(default_factory=lambda: SimpleNamespace(info=SimpleNamespace(name="minilm")))

    @property
    def adapters(self) -> dict[str, Any]:
        task = SimpleNamespace(name="long", kind="classification", pair=False, label_names=("short", "long"))
        config = SimpleNamespace(method="adapter")
        return dict.fromkeys(("one", 'tw"o'), SimpleNamespace(task=task, config=config, scores={"test/accuracy": 0.5}))

    def faults_of(self, texts: Sequence[tuple[str, Any]]) -> list[str]:
        known = self.adapters
        return [f"texts[{i}]: {unknown_name('adapter', n, known)}" for i, (n, _) in enumerate(texts) if n not in known]

    def answer(self, texts: Sequence[tuple[str, Any]]) -> list[tuple[Any, np.ndarray]]:
        self.batches.append(len(texts))
        time.sleep(self.takes_s)
        if any(text == "crash" for _, text in texts):
            raise RuntimeError("a secret of the inside")
        if any(text == "faulty" for _, text in texts):
            raise FaultsError("predict", ["texts[0]: is faulty"])
        return [(f"{name}:{len(text)}", np.array([0.5, len(text)], np.float32)) for name, text in texts]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    application: Any,
    path: str,
    body: bytes | AsyncIterator[bytes] | Any = None,
    *,
    method: str | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """One request; a body that is neither bytes nor a stream of them is sent as JSON."""
    if body is not None and not isinstance(body, bytes | AsyncIterator):
        body = json.dumps(body).encode()
    parts = body if isinstance(body, AsyncIterator) else None
    given = {**JSON, **({"content-length": str(len(body))} if isinstance(body, bytes) else {}), **(headers or {})}
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if parts is None:
            return {"type": "http.request", "body": body or b"", "more_body": False}
        async for part in parts:
            return {"type": "http.request", "body": part, "more_body": True}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method or ("GET" if body is None else "POST"),
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1234),
    }
    await application(scope, receive, send)
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:]))


@contextlib.asynccontextmanager
async def running(application: Any) -> AsyncIterator[None]:
    """The application between its start and its end."""
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    task = asyncio.create_task(application({"type": "lifespan", "asgi": {"version": "3.0"}}, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        await inbox.put({"type": "lifespan.shutdown"})
        assert (await outbox.get())["type"] == "lifespan.shutdown.complete"
        await task


def serving(questions: Callable[[Any], Coroutine[Any, Any, Any]], bank: Any = None, **options: Any) -> Any:
    """What questions to a server come to."""

    async def run() -> Any:
        application = make_application(bank or Parrot(), **options)
        async with running(application):
            return await questions(application)

    return asyncio.run(run())


def question(*texts: str, adapter: str = "one", **more: Any) -> dict[str, Any]:
    return {"inputs": [{"adapter": adapter, "text": text} for text in texts], **more}


def test_predictions_come_in_order_with_what_was_asked_for() -> None:
    async def run(application: Any) -> None:
        answer = await ask(application, "/predict", question("abc", "x"))
        assert answer.status == 200
        assert answer.json == {
            "outputs": [{"adapter": "one", "prediction": "one:3"}, {"adapter": "one", "prediction": "one:1"}]
        }
        answer = await ask(application, "/predict", question("abc", logits=True))
        assert answer.json["outputs"] == [{"adapter": "one", "prediction": "one:3", "logits": [0.5, 3.0]}]
        answer = await ask(application, "/predict", {"inputs": [{"adapter": "one", "text": "a", "pair": "b"}]})
        assert answer.json["outputs"][0]["prediction"] == "one:2"  # two texts
        assert (await ask(application, "/health")).json == {"status": "ok", "adapters": 2}
        (first, _) = (await ask(application, "/adapters")).json["adapters"]
        assert first == {
            "name": "one",
            "task": "long",
            "kind": "classification",
            "takes_pairs": False,
            "labels": ["short", "long"],
            "method": "adapter",
            "scores": {"test/accuracy": 0.5},
        }
        await ask(application, "/predict", question("abc", adapter='tw"o'))
        metrics = (await ask(application, "/metrics")).body.decode()
        assert 'adaptune_texts_total{adapter="one"} 4' in metrics
        assert r'adaptune_texts_total{adapter="tw\"o"} 1' in metrics
        assert 'adaptune_predict_seconds_bucket{le="+Inf"} 4' in metrics
        assert "adaptune_batch_texts_total 5\n" in metrics
        assert 'adaptune_requests_total{status="200"} 6' in metrics

    serving(run)


@pytest.mark.parametrize(
    ("body", "status", "fault"),
    [
        (b"{", 422, "JSON decode error"),
        ([1], 422, "body: "),
        ({"inputs": []}, 422, "inputs: list should have at least 1 item"),
        ({"inputs": [{"adapter": "one"}]}, 422, "inputs[0].text: field required"),
        ({"inputs": [{"adapter": "one", "text": 1}]}, 422, "inputs[0].text: input should be a valid string"),
        ({"inputs": [{"adapter": "one", "text": "a", "x": 1}]}, 422, "inputs[0].x: extra inputs are not permitted"),
        (question("a", adapter="on"), 422, "inputs[0]: unknown adapter 'on'; did you mean 'one'?"),
        (question(*"abcde"), 422, "inputs: must be at most 4, but are 5"),
        (question("x" * 2000), 413, "the body must have at most 1,000 bytes"),
        (question("faulty"), 422, "texts[0]: is faulty"),
        (question("crash"), 500, "the server failed to answer; its log says why"),
    ],
)
def test_what_is_wrong_is_said_in_one_form(body: Any, status: int, fault: str) -> None:
    async def run(application: Any) -> Answer:
        with contextlib.suppress(RuntimeError):  # what a server logs
            await ask(application, "/predict", body)
        sent: list[Answer] = []

        async def keep() -> None:
            sent.append(await ask(application, "/predict", question("fine")))

        await keep()
        assert sent[0].status == 200  # and harms nobody else
        try:
            return await ask(application, "/predict", body)
        except RuntimeError:
            return Answer(500, {}, b'{"error": "the server failed to answer; its log says why", "faults": ["", ""]}')

    answer = serving(run, limits=Limits(body_bytes=1000, texts_a_request=4))
    assert answer.status == status
    assert fault in answer.json["error"]
    assert answer.json["faults"]
    assert "secret" not in answer.body.decode()
    assert len(answer.body) < 600


def test_a_body_that_is_too_large_is_refused_before_it_is_read_or_while() -> None:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(1000):
            sizes.append(100)
            yield b"x" * 100

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    async def run(application: Any) -> None:
        declared = {"content-length": str(100 * 2**20)}
        answer = await ask(application, "/predict", never(), headers=declared)
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert (await ask(application, "/predict", stream())).status == 413
        assert len(sizes) == 11

    sizes: list[int] = []
    serving(run, limits=Limits(body_bytes=1000))


def test_whoever_stops_in_the_middle_of_a_body_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    monkeypatch.setattr(guard, "BODY_TIMEOUT_S", 0.05)
    assert serving(lambda application: ask(application, "/predict", slow())).status == 408


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"authorization": f"Bearer {TOKEN}"}, "/metrics", 200),
        ({}, "/health", 200),
        ({}, "/metrics", 401),
        ({}, "/openapi.json", 401),
        ({"authorization": "Bearer wrong"}, "/adapters", 401),
        ({"authorization": TOKEN}, "/adapters", 401),
        ({"authorization": f"Bearer {TOKEN}", "host": "evil.example"}, "/adapters", 421),
        ({"authorization": f"Bearer {TOKEN}", "host": "[::1]:80"}, "/adapters", 200),
        ({"authorization": f"Bearer {TOKEN}"}, "/nothing", 404),
        ({"authorization": f"Bearer {TOKEN}"}, "/predict", 405),
    ],
)
def test_who_may_ask_for_what(headers: dict[str, str], path: str, status: int) -> None:
    hosts = ["127.0.0.1", "localhost", "::1"]
    answer = serving(lambda application: ask(application, path, headers=headers), token=TOKEN, hosts=hosts)
    assert answer.status == status
    if status >= 400:
        assert answer.json["faults"]
        assert TOKEN not in answer.body.decode()


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded"])
def test_what_a_page_elsewhere_could_send_unasked_is_no_question(kind: str) -> None:
    answer = serving(lambda app: ask(app, "/predict", question("a"), headers={"content-type": kind}))
    assert answer.status == 415


def test_an_address_that_others_reach_needs_a_token() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org")] == [False] * 4
    assert access_faults("127.0.0.1", None) == []
    assert access_faults("0.0.0.0", TOKEN) == []
    assert "--token-env" in access_faults("0.0.0.0", None)[0]
    assert "at least 16 characters" in access_faults("127.0.0.1", "short")[0]


class TestBatching:
    def test_requests_that_come_together_are_answered_together_and_each_gets_its_own(self) -> None:
        bank = Parrot(takes_s=0.02)

        async def run(application: Any) -> None:
            lengths = list(range(1, 41))
            answers = await asyncio.gather(*(ask(application, "/predict", question("x" * n, "y")) for n in lengths))
            for n, answer in zip(lengths, answers, strict=True):
                assert [each["prediction"] for each in answer.json["outputs"]] == [f"one:{n}", "one:1"]

        serving(run, bank, limits=Limits(texts_a_batch=16))
        assert sum(bank.batches) == 80
        assert max(bank.batches) == 16
        assert len(bank.batches) < 12

    def test_one_request_that_breaks_a_batch_fails_alone(self) -> None:
        def answer(texts: Sequence[tuple[str, Any]]) -> list[Any]:
            if any(text == "bad" for _, text in texts):
                raise ValueError("bad")
            return [text for _, text in texts]

        async def run() -> list[Any]:
            batcher = Batcher(answer, most_texts=10, most_waiting=10)
            asked = [asyncio.create_task(batcher.ask([("one", text)])) for text in ("a", "bad", "b")]
            await asyncio.sleep(0)
            batcher.start()
            found = await asyncio.gather(*asked, return_exceptions=True)
            await batcher.end()
            assert batcher.waiting == 0
            return found

        first, broken, last = asyncio.run(run())
        assert (first, last) == (["a"], ["b"])
        assert isinstance(broken, ValueError)

    def test_too_much_is_refused_at_once_and_the_end_answers_what_waits(self) -> None:
        began = threading.Event()

        def answer(texts: Sequence[tuple[str, Any]]) -> list[Any]:
            began.set()
            time.sleep(0.05)
            return [text for _, text in texts]

        async def run() -> None:
            batcher = Batcher(answer, most_texts=1, most_waiting=3)
            batcher.start()
            asked = [asyncio.create_task(batcher.ask([("one", n)])) for n in range(3)]
            gone = asked[1]
            await asyncio.sleep(0.01)
            with pytest.raises(BusyError):
                await batcher.ask([("one", 3)])
            gone.cancel()
            end = asyncio.create_task(batcher.end())
            await asyncio.sleep(0)
            with pytest.raises(EndedError):
                await batcher.ask([("one", 4)])
            await end
            assert [await asked[0], await asked[2]] == [[0], [2]]

        asyncio.run(run())
        assert began.is_set()


def test_a_signal_that_comes_before_the_first_request_ends_the_server() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    late = threading.Timer(20, lambda: os.kill(os.getpid(), signal.SIGTERM))  # so that nothing is waited for
    late.start()
    try:
        with listen("127.0.0.1", 0) as listening:
            serve(Parrot(), listening, token=None, ready=lambda url: signal.raise_signal(signal.SIGTERM))  # type: ignore[arg-type]
        assert late.is_alive()
        assert came == []
    finally:
        late.cancel()
        signal.signal(signal.SIGTERM, before)
