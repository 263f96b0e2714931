"""The Hugging Face hub: what is fetched from it, at which commit, and one clear message where that cannot be done.

Everything lies in the hub's own cache (HF_HOME): whole files below `hub`, and what is made of them (streamed texts,
a converted SAE) below `sae-unlearning`, because it belongs to the downloads, for every checkout and profile alike, and
goes when they go. What has been fetched once loads without a network.
"""

import json
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import HfApi, auth_check, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from helpers.loading.sources import Source
from helpers.records.store import write_atomically

TOKENS = "https://huggingface.co/settings/tokens"
# How a table is read by the end of its file's name; where rows are there in several formats, the first is taken.
READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".parquet": pd.read_parquet,
    ".jsonl": lambda file: pd.read_json(file, lines=True, dtype=False),
    ".csv": lambda file: pd.read_csv(file, keep_default_na=False),
}


class HubError(OSError):
    """Something could not be fetched; the message says what, why, and what to do next, and never the token."""


class AccessError(HubError):
    """The hub does not give it to this token, or not without one."""


class Hub:
    """The hub as one run sees it, with a record of what came from there.

    Args:
        cache: another folder than the hub's own cache.

    Attributes:
        commits: of each repository or file that was loaded, its commit or SHA-256.
        warnings: where something is not as it is known to be.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache
        self.commits: dict[str, str] = {}
        self.warnings: list[str] = []

    def fetch(self, source: Source) -> Path:
        """The folder that holds the source's files, downloaded where they are not in the cache; its name is the commit.

        Raises:
            HubError: no access, no such file, no network and nothing in the cache, or an interrupted download.
        """
        where: dict[str, Any] = {
            "repo_type": source.kind,
            "revision": source.revision,
            "allow_patterns": list(source.files),
            "cache_dir": self._cache,
        }
        folder = Path(_asked(source, lambda: snapshot_download(source.repo, **where)))
        if not files_of(source, folder):
            raise HubError(f"{source.repo} has no file {' or '.join(source.files)}; see {source.page}/tree/main")
        self.commits[source.repo] = folder.name
        return folder

    def table(self, source: Source, columns: list[str]) -> pd.DataFrame:
        """Some columns of a data set's rows, in order. A number of rows other than the known one is a warning.

        Raises:
            HubError: as `fetch`.
            ValueError: a file that cannot be read, or lacks a column.
        """
        files = self._of_one_format(source, files_of(source, self.fetch(source)))
        table = pd.concat([read_table(file, columns, source.repo) for file in files], ignore_index=True)
        if source.rows not in (None, len(table)):
            self.warnings.append(f"{source.repo} {source.files[0]}: {len(table)} rows, known are {source.rows}")
        return table

    def _of_one_format(self, source: Source, files: list[Path]) -> list[Path]:
        """The files of the first format that can be read: the same rows in two would be every row twice."""
        kinds = [kind for kind in READERS if any(file.suffix == kind for file in files)]
        if len(kinds) > 1:
            self.warnings.append(f"{source.repo} has its rows as {' and as '.join(kinds)}: {kinds[0]} is read")
        return [file for file in files if file.suffix == kinds[0]] if kinds else files

    def streamed(self, source: Source, characters: int) -> list[str]:
        """The first texts of a large data set, about so many characters, kept in the cache from then on.

        Raises:
            HubError: as `fetch`.
            ValueError: a row has no text.
        """
        path = streamed_file(source, characters)
        if not path.is_file():
            kept = json.dumps(_asked(source, lambda: _streamed(source, characters)))
            write_atomically(path, lambda file: file.write_text(kept, encoding="utf-8"))
        kept = json.loads(path.read_text(encoding="utf-8"))
        self.commits[source.repo] = kept["commit"]
        return kept["texts"]


def streamed_file(source: Source, characters: int) -> Path:
    """Where so much of a streamed text is kept."""
    return own_cache() / source.repo.replace("/", "__") / f"{source.revision}-{characters}.json"


def own_cache() -> Path:
    """The folder for what is made of downloads."""
    return Path(constants.HF_HOME) / "sae-unlearning"


def files_of(source: Source, folder: Path) -> list[Path]:
    """The source's files in the folder that `Hub.fetch` returned, sorted."""
    names = {path: path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return sorted(path for path, name in names.items() if any(fnmatch(name, pattern) for pattern in source.files))


def read_table(path: Path, columns: list[str], name: str) -> pd.DataFrame:
    """Some columns of a table in one of three formats. Raises ValueError for another format, or a missing column."""
    if path.suffix not in READERS:
        raise ValueError(f"{name}: {path.name} is not a file that can be read, allowed are {', '.join(READERS)}")
    try:
        table = READERS[path.suffix](path)
    except (ValueError, OSError) as error:  # pyarrow's own errors are both
        raise ValueError(f"{name}: {path.name} cannot be read: {error}") from None
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"{name}: {path.name} has no column {', '.join(missing)}, it has {', '.join(table.columns)}")
    return table[columns]


def names_in(source: Source) -> list[str]:
    """Names of all files in a source's repository. Raises HubError as `Hub.fetch`."""
    how = {"repo_type": source.kind, "revision": source.revision}
    return _asked(source, lambda: HfApi().list_repo_files(source.repo, **how))


def first_document(source: Source) -> dict[str, Any]:
    """The first row of a text, without its other rows.

    Raises:
        HubError: as `Hub.fetch`.
    """
    from datasets import load_dataset  # takes seconds to import, and is needed here only

    # asked first: datasets says of a corpus that may not be read only that it was not found
    _asked(source, lambda: auth_check(source.repo, repo_type=source.kind))
    files = [name for name in names_in(source) if any(fnmatch(name, pattern) for pattern in source.files)]
    if source.files and not files:
        raise HubError(f"{source.repo} has no file {' or '.join(source.files)}; see {source.page}/tree/main")
    how: dict[str, Any] = {"split": "train", "streaming": True, "revision": source.revision}
    if files:
        how["data_files"] = files[0]
    return _asked(source, lambda: next(iter(load_dataset(source.repo, **how))))


def _streamed(source: Source, characters: int) -> dict[str, Any]:
    from datasets import load_dataset  # takes seconds to import, and is needed here only

    commit = HfApi().repo_info(source.repo, repo_type=source.kind, revision=source.revision).sha
    texts, read = [], 0
    for number, row in enumerate(load_dataset(source.repo, split="train", streaming=True, revision=commit)):
        text = row.get("text")
        if not isinstance(text, str):  # its kind and not what it holds, as in a table
            kind = f"row {number} is not text but {type(text).__name__}" if "text" in row else "it has no column text"
            raise ValueError(f"{source.repo} (streamed): {kind}, columns are {', '.join(row)}")
        texts.append(text)
        read += len(text)
        if read >= characters:
            break
    return {"commit": commit, "texts": texts}


def _asked(source: Source, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except (OSError, HTTPError, EntryNotFoundError) as error:  # all that network, disk and the hub's client raise
        # from None: what lies below holds requests, and a request holds the token
        raise explained(source, error) from None


def explained(source: Source, error: Exception) -> HubError:
    """An error of the hub's client as one that says in a line what it means for this source, and what to do next."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    token, name = get_token(), f"{source.repo} ({source.what})"
    if isinstance(error, RepositoryNotFoundError) and source.gated and token is None:
        return AccessError(
            f"{name} needs a token: accept its terms at {source.page}, make a token at {TOKENS}, "
            f"then `hf auth login` or set HF_TOKEN"
        )
    if status == 401 and token is not None:
        return HubError(f"{name}: the hub refuses your token: make another at {TOKENS}, then `hf auth login`")
    if isinstance(error, GatedRepoError) or status == 403:
        return AccessError(f"{name}: your token has no access yet: ask at {source.page}, wait until it is granted")
    if isinstance(error, RepositoryNotFoundError):
        return HubError(f"{name}: there is no such repository, or it may not be seen: see {source.page}")
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return HubError(f"{name}: the hub cannot be reached and the cache has not all of it: go online, run this again")
    if isinstance(error, EntryNotFoundError) or status == 404:
        return HubError(f"{name}: a file of revision {source.revision!r} is missing: see {source.page}/tree/main")
    kind = type(error).__name__ if status is None else f"{type(error).__name__}, status {status}"
    return HubError(f"{name}: fetching it broke off ({kind}): run this again, what has arrived is kept")
