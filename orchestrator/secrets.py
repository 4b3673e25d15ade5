"""Secrets: where they may not stand, and how they are kept from being shown.

A key, a password or a token reaches adaptune through the environment, a file of the library that needs it, or the
machine's own identity. It does not belong in a URI: a URI stands in the history of shells, in lists of processes, in
job tables and in logs. `store_faults` and its kin refuse it there, with what to do instead. `masked` is a second wall,
for text that others have made: whatever looks like a secret, or is one that the environment holds, is shown as stars.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

MASK = "***"

# Names of query parameters, settings and variables whose values are secrets.
_SECRET_NAME = re.compile(
    r"(?:^|[_.-])(?:pass(?:word|wd|phrase)?|pwd|secret|token|credentials?|sig|signature|sas|"
    r"(?:access|account|api|private|secret|shared|signing)[_-]?key(?:[_-]?id)?)$",
    re.IGNORECASE,
)
_SHORTEST = 8  # characters of a secret that is looked for in text: a shorter one would be found everywhere

# A password may hold a slash or an @, though it should not; what follows a colon may be a port, though.
_USERINFO = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s/?#@'\":]*):(?!\d+(?:[/\s]|$))(?P<password>[^\s?#'\"]*)@"
)
_USER_ONLY = re.compile(r"(?P<scheme>\b(?:s3|https?)://)[^\s/?#@'\":]+@")  # a name alone, which is a key or a token
_PARAMETER = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_.-]*)=(?P<value>[^\s&;,'\"]+)")

_STORE_REMEDY = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile in ~/.aws, or the machine's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login`, or the machine's service account",
    "abfs": "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET, `az login`, or the machine's identity",
}
_STORE_REMEDY |= {"gcs": _STORE_REMEDY["gs"], "abfss": _STORE_REMEDY["abfs"]}
_TRACKING_REMEDY = {
    "http": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN, or ~/.mlflow/credentials",
    "postgresql": "PGPASSWORD or ~/.pgpass, or the whole URI in MLFLOW_TRACKING_URI",
}
_TRACKING_REMEDY |= {"https": _TRACKING_REMEDY["http"]}
_ANY_REMEDY = "the environment, a file of the library that needs it, or the machine's identity"


def store_faults(what: str, uri: str) -> list[str]:
    """Why a store's URI is refused: it holds keys. `what` names it in the message."""
    return _uri_faults(what, uri, _STORE_REMEDY)


def tracking_faults(what: str, uri: str) -> list[str]:
    """Why the URI of a tracking store is refused where it stands in an argument. In the environment it may hold all."""
    remedies = {**_TRACKING_REMEDY, "": "the whole URI in MLFLOW_TRACKING_URI"}
    return _uri_faults(what, uri, remedies)


def address_faults(what: str, uri: str) -> list[str]:
    """Why the address of a cluster or of its job server is refused."""
    return _uri_faults(what, uri, {"": "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"})


def reference_faults(what: str, text: str) -> list[str]:
    """Why what a sweep names, such as a task or a backbone, is refused: specs are kept and shown."""
    return _uri_faults(what, text, _STORE_REMEDY)


def without_secrets(what: str, value: Any) -> tuple[Any, list[str]]:
    """Plain values of a sweep with each URI masked that holds secrets, and the faults of these."""
    if isinstance(value, str):
        faults = reference_faults(what, value)
        return (masked(value), faults) if faults else (value, [])
    if isinstance(value, dict):
        parts = {key: without_secrets(f"{what}.{key}" if what else str(key), each) for key, each in value.items()}
        return {key: part for key, (part, _) in parts.items()}, [f for _, faults in parts.values() for f in faults]
    if isinstance(value, list):
        entries = [without_secrets(what, each) for each in value]
        return [entry for entry, _ in entries], [fault for _, faults in entries for fault in faults]
    return value, []


def _uri_faults(what: str, uri: str, remedies: Mapping[str, str]) -> list[str]:
    scheme, is_uri, _ = uri.partition("://")
    if not is_uri:
        return []
    dialect = scheme.partition("+")[0].lower()
    dialect = "postgresql" if dialect == "postgres" else dialect
    # A container of Azure and the user of a database stand before an @ too, and are no secrets.
    holds = ["a password or key before the @"] if _USERINFO.match(uri) else []
    if not holds and _USER_ONLY.match(uri):
        holds = ["a key or token before the @"]
    holds += [f"the parameter {name}" for name, value in _parameters(uri) if value and _SECRET_NAME.search(name)]
    if not holds:
        return []
    remedy = remedies.get(dialect) or remedies.get("") or _ANY_REMEDY
    return [f"{what} must hold no secrets, but {masked(uri)} has {' and '.join(holds)}; use {remedy}"]


def _parameters(uri: str) -> list[tuple[str, str]]:
    query = uri.partition("?")[2].partition("#")[0]
    return parse_qsl(query.replace(";", "&"), keep_blank_values=True)


def without_settings(place: str) -> str:
    """A store's place as whoever sees it may see it: a URI without user, keys and settings, a path as it is."""
    return re.sub("//[^/]*@", "//", place).partition("?")[0] if "://" in place else place


def masked(text: str) -> str:
    """A text with three stars for each secret: in URIs, in `name=value`, and wherever a variable's value stands."""
    for secret in _secrets_of(tuple(os.environ.items())):
        if secret in text:
            text = text.replace(secret, MASK)
    if "://" in text:
        text = _USERINFO.sub(lambda found: f"{found['scheme']}{_user(found)}:{MASK}@", text)
        text = _USER_ONLY.sub(lambda found: f"{found['scheme']}{MASK}@", text)
    if "=" in text:
        text = _PARAMETER.sub(_masked_parameter, text)
    return text


def _user(found: re.Match[str]) -> str:
    """What stands before the colon: of a bucket it is half of a pair of keys."""
    return MASK if found["scheme"] == "s3://" else found["user"]


def _masked_parameter(found: re.Match[str]) -> str:
    return f"{found['name']}={MASK}" if _SECRET_NAME.search(found["name"]) else found[0]


@functools.lru_cache(maxsize=2)
def _secrets_of(environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The secrets among a process's variables, the longest first, as they are and as URIs write them."""
    found = set()
    for name, value in environment:
        if _SECRET_NAME.search(name) and not _is_file(name, value):
            found.add(value)
        elif "://" in value and (password := _password(value)):
            found.add(password)
    found |= {quote(secret, safe="") for secret in found} | {unquote(secret) for secret in found}
    return tuple(sorted((secret for secret in found if len(secret) >= _SHORTEST), key=len, reverse=True))


def _is_file(name: str, value: str) -> bool:
    """Whether a variable names a file that holds a secret. One key in 64 of AWS begins as an absolute path does."""
    return os.path.isabs(value) and (name.upper().endswith("CREDENTIALS") or os.path.exists(value))


def _password(uri: str) -> str | None:
    try:
        return urlsplit(uri).password
    except ValueError:
        return None
