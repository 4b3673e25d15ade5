"""Sending an exported folder to a repository of the Hugging Face hub, or of one that speaks its language."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.secrets import masked
from trainables.faults import FaultsError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# By name in the environment alone: what stands on a command line is in the list of processes and the shell's history.
TOKEN = "HF_TOKEN"


@dataclass(frozen=True, kw_only=True)
class HubRepository:
    """A repository that may be pushed to: it is one's own to write, and as private as was asked for."""

    api: HfApi
    repo_id: str

    def push(self, folder: Path) -> str:
        """Send the files of a folder in one commit; returns its address. Raises `FaultsError` where that fails.

        Where tasks and backbones lie on this machine is not sent: of such a path the last name is.
        """
        from huggingface_hub import CommitOperationAdd

        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        added = [CommitOperationAdd(path.relative_to(folder).as_posix(), _published(path)) for path in files]
        try:
            commit = self.api.create_commit(
                self.repo_id, added, commit_message="Add an adapter exported by adaptune", repo_type="model"
            )
        except Exception as error:  # whatever the client's HTTP library raises comes through as it is
            raise _refusal(f"{folder} is written, but could not be sent to {self.repo_id}", error) from None
        return commit.commit_url


def open_hub(repo_id: str, *, public: bool) -> HubRepository:
    """The repository to push to, made where there is none; before anything is trained for it.

    Private unless it is to be public: then one that is there already must be private too. The endpoint is that of
    `HF_ENDPOINT`. Raises `FaultsError` where there is no token, the name is none, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public all the same

    faults = []
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        faults.append(f"--push: the variable {TOKEN} must hold a token that may write, but is not set")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        faults.append(f"--push: must be the name of a repository, such as me/tickets-adapter, but {error}")
    if faults:
        raise FaultsError("export", faults)
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token, library_name="adaptune")
    try:
        found = api.create_repo(repo_id, private=not public, exist_ok=True, repo_type="model")
        is_private = bool(api.model_info(found.repo_id).private)
    except Exception as error:  # as above
        raise _refusal(f"{repo_id} cannot be pushed to", error) from None
    if not is_private and not public:
        rule = "must be private, or --public must say that all may read it"
        raise FaultsError("export", [f"--push: {rule}, but {repo_id} is there already and public"])
    return HubRepository(api=api, repo_id=found.repo_id)


def _published(path: Path) -> bytes | Path:
    """A file as everybody may read it."""
    if path.suffix != ".json":
        return path
    content = json.loads(path.read_text(encoding="utf-8"))
    told = _without_places(content)
    return path if told == content else (json.dumps(told, indent=2) + "\n").encode()


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_places(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_places(each) for each in value]
    is_place = isinstance(value, str) and os.path.isabs(value) and os.path.exists(value)
    return os.path.basename(value.rstrip(os.sep)) if is_place else value


def _refusal(what: str, error: Exception) -> FaultsError:
    token = os.environ[TOKEN].strip()
    said = masked(" ".join(str(error).split())).replace(token, "...")
    return FaultsError("export", [f"--push: {what}: {type(error).__name__}: {said[:400]}"])
