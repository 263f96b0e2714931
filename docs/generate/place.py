"""Where a site is made from and where it goes, and how files of the repository are linked in it."""

import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# what a page of docs/ may name of the repository; figures and notebooks are copied, so these links stay links
COPIED = ("figures", "notebooks")


def repository() -> str:
    """The address of the repository without an ending slash, or '' where nobody has said it.

    GitHub's own runners say it by two variables; elsewhere `[project.urls] Repository` may stand in pyproject.toml.
    """
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{name}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "").rstrip("/")


@dataclass
class Place:
    """One build.

    Attributes:
        profile: whose figures and executed notebooks are shown.
        figures, runs: the folders that hold them, a folder a profile.
        source: Markdown and notebooks for Sphinx, made anew.
        out: the site.
        missing: what is not there, each with the command that makes it.
        files: files of the repository that pages link to, copied beside them.
    """

    profile: str
    figures: Path
    runs: Path
    source: Path
    out: Path
    repository: str = ""
    missing: list[str] = field(default_factory=list)
    files: set[str] = field(default_factory=set)

    @property
    def pictures(self) -> Path:
        """The folder of this profile's figures."""
        return self.figures / self.profile

    def write(self, name: str, text: str) -> None:
        """A page of the site's source."""
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def lacks(self, what: str, command: str) -> str:
        """Note what is missing and the command that makes it; returns the sentence that stands in its place."""
        sentence = f"{what}. To make it: `{command}`."
        self.missing.append(sentence)
        return sentence

    def relinked(self, text: str) -> str:
        """A page of docs/ with its links to files of the repository turned to what there is in the site."""
        text = re.sub(rf"\.\./({'|'.join(COPIED)})/tiny/", rf"\1/{self.profile}/", text)
        text = re.sub(rf"\.\./({'|'.join(COPIED)})/", r"\1/", text)
        text = re.sub(r"^:img-top: (.+)\n:img-alt: .+\n", self._card_picture, text, flags=re.MULTILINE)
        return re.sub(r"\[([^\]]+)\]\(\.\./([^)]+)\)", self._link, text)

    def _card_picture(self, found: re.Match[str]) -> str:
        """A card's picture, if this profile has it; what is missing has been named elsewhere."""
        return found[0] if (self.source / found[1]).is_file() else ""

    def _link(self, found: re.Match[str]) -> str:
        words, path = found.groups()
        if path.startswith("helpers/") and path.endswith(".py"):
            return f"{{py:mod}}`{words} <{path.removesuffix('.py').replace('/', '.')}>`"
        if self.repository:
            return f"[{words}]({self.repository}/blob/main/{path})"
        if (ROOT / path).is_file():
            self.files.add(path)
            return f'<a href="files/{path}">{words}</a>'
        return f"{words} (`{path}`)"
