"""Secrets: where they may not stand, and how they are kept from being shown.

A key, a password or a token reaches adaptune through the environment, a file of the library that needs it, or the
machine's own identity. It does not belong in a URI: a URI stands in the history of shells, in lists of processes, in
job tables and in logs. `store_faults` and its kin refuse it there, with what to do instead. `masked` is a second wall,
for text that others have made: whatever looks like a secret, or is one that the environment holds, is shown as stars.

The two walls read differently. What is refused is one URI from end to end, and is read as whoever opens it reads it.
In a text nobody knows where a URI ends, so a little too much is masked there rather than too little.
"""

from __future__ import annotations

import functools
import html
import json
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

MASK = "***"
_SHORTEST = 8  # characters of a secret that is looked for in text: a shorter one would be found everywhere

# Names of query parameters, settings and variables whose values are secrets, once clientSecret reads client_secret.
# The short words must stand alone, since a compass is no pass; the long ones end a name such as PGPASSWORD too.
_SECRET_NAME = re.compile(
    r"(?:(?:^|[_.-])(?:pass|pwd|token|sig|sas)|password|passwd|passphrase|secret|credentials?|signature|"
    r"(?:access|api|auth|bearer|hub|refresh|sas|security|session)token|"
    r"(?:access|account|api|auth|client|encryption|private|secret|shared|signing|storage)[_-]?key(?:[_-]?id)?)$"
)
_VOCABULARY = re.compile(r"(?:^|_)(?:bos|cls|eos|mask|pad|per|sep|special|unk)_token$")  # a tokenizer's, or a measure

# As a URI writes a scheme, and not the end of a longer one.
_SCHEME = r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+._-]{0,40}"
_DATABASES = r"(?:cockroachdb|mariadb|mssql|mysql|oracle|postgres|postgresql)(?:\+\w+)?"
# Schemes of which host:port may stand before a path with an @ in it. Of a database such a path is a password, as
# SQLAlchemy reads it, and of a bucket too, since that has no port.
_WITH_PORT = r"(?:[\w.-]+\+)?(?:https?|hdfs|viewfs|abfss?|ray|grpc|tcp|wss?)"
_PORT = r"\d{1,5}(?:[/?'\"]|[^\w\s@]*(?:\s|$))"

# A URI from end to end, as SQLAlchemy reads it and others nearly so: all up to the first @ is the password, be there
# slashes, quotes, blanks, # or ? in it. What follows up to the last @ is of a password whose @ was not encoded.
_WHOLE = re.compile(
    rf"(?P<start>(?:(?={_WITH_PORT}://(?!\[[0-9a-f:.]+\])[^:/]*:(?!{_PORT}))|(?!{_WITH_PORT}://)){_SCHEME}://)"
    r"(?P<user>[^:/]*):(?P<first>[^@]+)(?P<more>(?:@[^@/?]*)*)(?:@[^@]*)*@",
    re.IGNORECASE,
)
# In a text, the user is a word, and only of a database may the password have blanks in it.
_USER = r"(?P<user>[^\s:/'\"<>()\[\]{},;]*)"
_USERINFO = (
    re.compile(rf"(?P<start>(?<![A-Za-z0-9+.-]){_DATABASES}://){_USER}:[^@\n]*(?:@[^\s@]*)*@", re.IGNORECASE),
    re.compile(
        rf"(?P<start>(?:(?={_WITH_PORT}://[^\s:/]*:(?!{_PORT}))|(?!{_WITH_PORT}://)){_SCHEME}://)"
        rf"{_USER}:[^\s@]*(?:@[^\s@]*)*@",
        re.IGNORECASE,
    ),
)
# A name alone, which is a key or a token. Elsewhere it is a user or a container, and no secret.
_USER_ONLY = re.compile(r"(?P<start>\b(?:s3|https?|ray)://)[^\s/?#@'\":]+@", re.IGNORECASE)

# name=value, as URIs and connection strings write it, encoded or not; and name: 'value', as JSON and Python do.
_NAME = re.compile(
    r"(?:(?<![A-Za-z0-9_.%-])|%[0-9A-Fa-f]{2})(?P<name>[A-Za-z0-9_.-]+)(?:['\"]?\s*[:=]\s*(?=['\"])|=|%3[Dd])"
)
_VALUE = re.compile(r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"|\{(?:[^}\n]|\}\})*\}|[^\s&]*[^\s&'\"()\[\]<>,;.:]")
_HUB_TOKEN = re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{20,}")
_HEADER = re.compile(r"(?P<start>\bauthorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic)\s+)[^\s'\"]+", re.IGNORECASE)

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
_TRACKING_REMEDY |= {"https": _TRACKING_REMEDY["http"], "postgres": _TRACKING_REMEDY["postgresql"]}
_ANY_REMEDY = "the environment, a file of the library that needs it, or the machine's identity"
_HUB_REMEDY = "HF_TOKEN, or `hf auth login`"


def store_faults(what: str, uri: str) -> list[str]:
    """Why a store's URI is refused: it holds keys. `what` names it in the message."""
    return _faults(what, uri, _STORE_REMEDY)


def tracking_faults(what: str, uri: str) -> list[str]:
    """Why the URI of a tracking store is refused where it stands in an argument. In the environment it may hold all."""
    return _faults(what, uri, {**_TRACKING_REMEDY, "": "the whole URI in MLFLOW_TRACKING_URI"})


def address_faults(what: str, uri: str) -> list[str]:
    """Why the address of a cluster or of its job server is refused, be it a URI or host:port."""
    remedy = "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
    if "://" not in uri and "@" in uri:
        place = f"{MASK}@{uri.rpartition('@')[2]}"
        return [f"{what} must hold no secrets, but {place} has something before the @; use {remedy}"]
    return _faults(what, uri, {"": remedy})


def reference_faults(what: str, text: str) -> list[str]:
    """Why what a sweep names, such as a task or a backbone, is refused: specs are kept and shown."""
    return _faults(what, text, _STORE_REMEDY)


def without_secrets(what: str, value: Any) -> tuple[Any, list[str]]:
    """Plain values of a sweep with each text masked that holds secrets, and the faults of these."""
    if isinstance(value, str):
        faults = reference_faults(what, value)
        return (_masked_uri(value), faults) if faults else (value, [])
    if isinstance(value, dict):
        parts = {key: without_secrets(f"{what}.{key}" if what else str(key), each) for key, each in value.items()}
        return {key: part for key, (part, _) in parts.items()}, [f for _, faults in parts.values() for f in faults]
    if isinstance(value, list):
        entries = [without_secrets(what, each) for each in value]
        return [entry for entry, _ in entries], [fault for _, faults in entries for fault in faults]
    return value, []


def without_settings(place: str) -> str:
    """A store's place as whoever sees it may see it: a URI without user, keys and settings, a path as it is."""
    return re.sub("//[^/]*@", "//", place).partition("?")[0] if "://" in place else place


def masked(text: str) -> str:
    """A text with three stars for each secret: in URIs, in `name=value`, and wherever a variable's value stands."""
    for secret in _secrets_of(tuple(os.environ.items())):
        if secret in text:
            text = text.replace(secret, MASK)
    if "://" in text:
        for pattern in _USERINFO:
            text = pattern.sub(_masked_userinfo, text)
        text = _USER_ONLY.sub(rf"\g<start>{MASK}@", text)
    return _HEADER.sub(rf"\g<start>{MASK}", _HUB_TOKEN.sub(MASK, _masked_parameters(text)))


def _faults(what: str, text: str, remedies: Mapping[str, str]) -> list[str]:
    holds = []
    if "://" in text:
        if _WHOLE.search(text):
            holds.append("a password or key before the @")
        elif _USER_ONLY.search(text):
            holds.append("a key or token before the @")
        holds += [f"the parameter {name}" for name, value in _parameters(text) if value and _is_secret(name, value)]
    remedy = remedies.get(re.split(r"[+:]", text.lower())[0]) or remedies.get("") or _ANY_REMEDY
    if _HUB_TOKEN.search(text):
        holds, remedy = [*holds, "a token of the hub"], f"{remedy}; for the hub {_HUB_REMEDY}" if holds else _HUB_REMEDY
    if not holds:
        return []
    return [f"{what} must hold no secrets, but {_masked_uri(text)} has {' and '.join(holds)}; use {remedy}"]


def _parameters(uri: str) -> list[tuple[str, str]]:
    """The parameters of a URI, decoded. A fragment's too, where browsers are given tokens."""
    parts = [part.partition("=") for part in _parts(uri)[1:]]
    return [(unquote_plus(name), unquote_plus(value)) for name, _, value in parts]


def _parts(uri: str) -> list[str]:
    """What stands before a URI's parameters, and each of these; a value may hold anything but &."""
    place, *rest = re.split("[?;#]", uri, maxsplit=1)
    return [place, *(part for each in rest for part in each.split("&"))]


def _is_secret(name: str, value: str) -> bool:
    """Whether a parameter is a secret, or holds one as ODBC's connection string or another URI does."""
    return _is_secret_name(name) or _masked_parameters(value) != value or _WHOLE.search(value) is not None


def _is_secret_name(name: str) -> bool:
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return bool(_SECRET_NAME.search(plain)) and not _VOCABULARY.search(plain)


def _masked_uri(uri: str) -> str:
    """A URI with its secrets masked, which is known from end to end: a blank does not end it."""
    if found := _WHOLE.search(uri):
        uri = f"{uri[: found.start()]}{_masked_userinfo(found)}{uri[found.end() :]}"
    place, *parts = _parts(uri)
    shown = uri[len(place) : len(place) + 1] + "&".join(map(_masked_part, parts))
    return masked(place + shown)


def _masked_part(part: str) -> str:
    name, _, value = part.partition("=")
    return f"{name}={MASK}" if value and _is_secret(unquote_plus(name), unquote_plus(value)) else part


def _masked_userinfo(found: re.Match[str]) -> str:
    """Of a bucket, what stands before the colon is half of a pair of keys."""
    start = found["start"]
    return f"{start}{MASK if start.lower().endswith('s3://') else found['user']}:{MASK}@"


def _masked_parameters(text: str) -> str:
    shown, end = [], 0
    for found in _NAME.finditer(text):
        if found.end() < end or not _is_secret_name(found["name"]):
            continue
        if value := _VALUE.match(text, found.end()):
            quotes = value[0][0] if value[0][0] in "'\"" else ""
            shown += [text[end : found.end()], quotes, MASK, quotes]
            end = value.end()
    return "".join([*shown, text[end:]])


@functools.lru_cache(maxsize=2)
def _secrets_of(environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The secrets among a process's variables, the longest first, as they are and as others write them."""
    found: set[str] = set()
    for name, value in environment:
        parameters = _parameters(value)
        if _is_secret_name(name):
            if not _is_path(name, value):
                found |= {value, value.strip()}
            continue
        if uri := _WHOLE.match(value):
            # The one that a database takes; and where an @ was not encoded, what it takes for the host.
            found |= {uri["first"], uri["first"] + uri["more"], *uri["more"].split("@")}
        found |= {each for parameter, each in parameters if _is_secret_name(parameter)}
        found |= {each for text in (value, *(part for _, part in parameters)) for each in _values(text)}
    found |= {unquote(secret) for secret in found}
    found |= {spelled for secret in found for spelled in _spellings(secret)}
    return tuple(sorted((secret for secret in found if len(secret) >= _SHORTEST), key=len, reverse=True))


def _values(text: str) -> list[str]:
    """The secrets of a connection string such as Azure's or ODBC's: quoted, or up to a semicolon or a blank."""
    values = []
    for found in _NAME.finditer(text):
        if _is_secret_name(found["name"]) and (value := _VALUE.match(text, found.end())):
            is_quoted = value[0][0] in "'\"{"
            values.append(value[0][1:-1] if is_quoted else re.split(r"[;\s]", text[found.end() :], maxsplit=1)[0])
    return values


def _spellings(secret: str) -> list[str]:
    """How URIs, Python, JSON and pages write a secret."""
    encoded = [quote(secret, safe=""), quote(secret, safe="/"), quote(secret, safe=" +"), quote_plus(secret)]
    return [*encoded, repr(secret)[1:-1], json.dumps(secret)[1:-1], html.escape(secret)]


def _is_path(name: str, value: str) -> bool:
    """Whether a variable names a file that holds a secret, or a shell's folder.

    One key in 64 of AWS begins as an absolute path does.
    """
    is_named = name.upper().endswith("CREDENTIALS") or name.upper() in ("PWD", "OLDPWD")
    return os.path.isabs(value) and (is_named or os.path.exists(value))
