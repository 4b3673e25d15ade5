"""The server's answers: predictions, what there is to ask, whether it is well, and what it has done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.serving.batching import Batcher, BusyError, EndedError
from orchestrator.serving.guard import Application, Guard
from orchestrator.serving.measures import Measures
from trainables.faults import FaultsError

if TYPE_CHECKING:
    from trainables.inference.bank import AdapterBank

_MOST_TOLD = 10


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, one batch and all that waits may have."""

    body_bytes: int = 1_000_000
    texts_a_request: int = 256
    texts_a_batch: int = 256
    texts_waiting: int = 4096


class Asked(BaseModel):
    """A text for an adapter; its pair, where the task is one of pairs."""

    model_config = ConfigDict(extra="forbid")

    adapter: str
    text: str
    pair: str | None = None


class Question(BaseModel):
    """Texts for any of the adapters. With `logits` each answer has the head's outputs too."""

    model_config = ConfigDict(extra="forbid")

    inputs: Annotated[list[Asked], Field(min_length=1)]
    logits: bool = False


def make_application(
    bank: AdapterBank, *, token: str | None = None, hosts: Sequence[str] | None = None, limits: Limits | None = None
) -> Application:
    """The server as an ASGI application. For `token` and `hosts` see `Guard`."""
    limits = limits or Limits()
    measures = Measures()
    batcher = Batcher(
        bank.answer, most_texts=limits.texts_a_batch, most_waiting=limits.texts_waiting, told=measures.batch
    )

    @contextlib.asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await batcher.end()

    # Without the pages that explain the interface: they load their scripts from elsewhere.
    app = FastAPI(title="adaptune", lifespan=lifespan, docs_url=None, redoc_url=None)
    _answer_faults(app)

    @app.post("/predict")
    async def predict(question: Question) -> Any:
        """What each adapter says of its text, in the order given."""
        began = time.perf_counter()
        if len(question.inputs) > limits.texts_a_request:
            fault = f"inputs: must be at most {limits.texts_a_request}, but are {len(question.inputs)}"
            return _refuse(422, [fault])
        texts = [(each.adapter, each.text if each.pair is None else (each.text, each.pair)) for each in question.inputs]
        if faults := bank.faults_of(texts):
            return _refuse(422, [fault.replace("texts[", "inputs[", 1) for fault in faults])
        try:
            answers = await batcher.ask(texts)
        except BusyError:
            busy = _refuse(503, [f"the server must answer {batcher.waiting} texts first; ask again in a moment"])
            busy.headers["retry-after"] = "1"
            return busy
        except EndedError:
            return _refuse(503, ["the server is about to end"])
        measures.predicted([name for name, _ in texts], time.perf_counter() - began)
        outputs = []
        for (name, _), (prediction, logits) in zip(texts, answers, strict=True):
            output = {"adapter": name, "prediction": prediction}
            outputs.append(output | ({"logits": logits.tolist()} if question.logits else {}))
        return JSONResponse({"outputs": outputs})

    @app.get("/adapters")
    async def adapters() -> Any:
        """What there is to ask."""
        return {"backbone": bank.backbone.info.name, "adapters": [_described(bank, name) for name in bank.adapters]}

    @app.get("/health")
    async def health() -> Any:
        """Whether the server is up."""
        return {"status": "ok", "adapters": len(bank.adapters)}

    @app.get("/metrics")
    async def metrics() -> Any:
        """Counters for Prometheus."""
        text = measures.written(adapters=len(bank.adapters), waiting=batcher.waiting)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    return Guard(app, token=token, hosts=hosts, most_bytes=limits.body_bytes, told=measures.request)  # type: ignore[arg-type]


def _described(bank: AdapterBank, name: str) -> dict[str, Any]:
    predictor = bank.adapters[name]
    task = predictor.task
    return {
        "name": name,
        "task": task.name,
        "kind": task.kind,
        "takes_pairs": task.pair,
        "labels": list(task.label_names),
        "method": predictor.config.method,
        "scores": dict(predictor.scores),
    }


def _answer_faults(app: FastAPI) -> None:
    """Let everything that goes wrong be answered in the one form that the guard has too."""

    @app.exception_handler(RequestValidationError)
    async def of_shape(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [_sentence(each) for each in error.errors()[:_MOST_TOLD]]
        return _refuse(422, faults)

    known = "POST /predict, and GET /adapters, /health, /metrics, /openapi.json"

    @app.exception_handler(404)
    async def of_place(request: Request, error: Exception) -> JSONResponse:
        return _refuse(404, [f"there is nothing at this path; there are {known}"])

    @app.exception_handler(405)
    async def of_method(request: Request, error: Exception) -> JSONResponse:
        return _refuse(405, [f"this path is asked for otherwise; there are {known}"])

    @app.exception_handler(FaultsError)
    async def of_texts(request: Request, error: FaultsError) -> JSONResponse:
        return _refuse(422, list(error.faults))

    @app.exception_handler(Exception)
    async def of_ours(request: Request, error: Exception) -> JSONResponse:
        return _refuse(500, ["the server failed to answer; its log says why"])


def _refuse(status: int, faults: Sequence[str]) -> JSONResponse:
    return JSONResponse({"error": "; ".join(faults), "faults": list(faults)}, status_code=status)


def _sentence(error: Any) -> str:
    """A fault as pydantic tells it, in words, without what came: that may be a megabyte."""
    where = ""
    for part in error["loc"][1:]:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
    message = str(error["msg"])
    begins = message[:1] if message[1:2].isupper() else message[:1].lower()  # JSON stays JSON
    return f"{where or 'body'}: {begins}{message[1:]}"
