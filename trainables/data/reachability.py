"""Whether to ask the Hugging Face hub. Training always does, with the hub's own patience; planning only if it answers.

A hub that is out of reach costs some twenty seconds of retries for each thing asked of it. A plan asks for many things
and can do without most of them, so it asks once whether anybody is there and takes the answer for all.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import huggingface_hub

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 3.0

_hurried: ContextVar[bool] = ContextVar("hurried", default=False)


@contextmanager
def hurried() -> Iterator[None]:
    """Within it, a hub that does not answer at once is not asked; what no local cache holds is then out of reach."""
    token = _hurried.set(True)
    try:
        yield
    finally:
        _hurried.reset(token)


def is_worth_asking() -> bool:
    """Whether a request to the hub should be made at all."""
    return not _hurried.get() or hub_answers()


@functools.cache
def hub_answers() -> bool:
    """One short request, the first time a process wants to know. Proxies, mirrors and offline mode are respected."""
    answers = threading.Event()

    def ask() -> None:
        try:
            huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=ANSWER_TIMEOUT_S)
        except Exception as error:  # of the HTTP library, of the system, or the hub library's for offline mode
            logger.debug("the Hugging Face hub does not answer: %s", error)
        else:
            answers.set()

    # In a thread, because no timeout ends a look-up of the host's name.
    asking = threading.Thread(target=ask, name="hub-probe", daemon=True)
    asking.start()
    asking.join(ANSWER_TIMEOUT_S)
    return answers.is_set()
