"""What a server has done so far, as Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

from collections import Counter

# Upper ends in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Measures:
    """Counters of one server, from its start on."""

    def __init__(self) -> None:
        self._requests: Counter[int] = Counter()
        self._texts: Counter[str] = Counter()
        self._batches = 0
        self._batch_texts = 0
        self._in_bucket = [0] * len(BUCKETS)
        self._seconds = 0.0
        self._timed = 0

    def request(self, status: int) -> None:
        """A request has been answered with this status."""
        self._requests[status] += 1

    def predicted(self, adapters: list[str], seconds: float) -> None:
        """Texts of these adapters have been answered, in one request that took so long."""
        self._texts.update(adapters)
        self._timed += 1
        self._seconds += seconds
        for place, end in enumerate(BUCKETS):
            self._in_bucket[place] += seconds <= end

    def batch(self, texts: int) -> None:
        """So many texts have passed the encoder together."""
        self._batches += 1
        self._batch_texts += texts

    def written(self, *, adapters: int, waiting: int) -> str:
        """All counters, with how many adapters there are and how many texts wait now."""
        lines = [
            *_named("requests_total", "counter", "Requests answered, by HTTP status."),
            *(f'adaptune_requests_total{{status="{status}"}} {n}' for status, n in sorted(self._requests.items())),
            *_named("texts_total", "counter", "Texts answered, by adapter."),
            *(f'adaptune_texts_total{{adapter="{_label(name)}"}} {n}' for name, n in sorted(self._texts.items())),
            *_named("batches_total", "counter", "Passes through the encoder."),
            f"adaptune_batches_total {self._batches}",
            *_named("batch_texts_total", "counter", "Texts that passed it; over batches_total, the mean batch."),
            f"adaptune_batch_texts_total {self._batch_texts}",
            *_named("predict_seconds", "histogram", "From a request's last byte to its answer."),
            *(
                f'adaptune_predict_seconds_bucket{{le="{end:g}"}} {n}'
                for end, n in zip(BUCKETS, self._in_bucket, strict=True)
            ),
            f'adaptune_predict_seconds_bucket{{le="+Inf"}} {self._timed}',
            f"adaptune_predict_seconds_sum {self._seconds:.6f}",
            f"adaptune_predict_seconds_count {self._timed}",
            *_named("adapters", "gauge", "Adapters in the bank."),
            f"adaptune_adapters {adapters}",
            *_named("waiting_texts", "gauge", "Texts that are not answered yet."),
            f"adaptune_waiting_texts {waiting}",
        ]
        return "\n".join(lines) + "\n"


def _named(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP adaptune_{name} {meaning}", f"# TYPE adaptune_{name} {kind}"]


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
