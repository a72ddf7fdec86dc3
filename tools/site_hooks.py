"""What mkdocs does beyond docs/: pages that lie elsewhere in the repository, and the YAML that a page speaks of, below it.

mkdocs calls `on_files` and `on_page_markdown` (its hooks). A page reads the same in the repository and on the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {
    "README.md": "index.md",
    "benchmarks/RESULTS.md": "results.md",
    "docker/README.md": "docker.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
"""Where a document of the repository is on the site."""

_LINK = re.compile(r"(\]\(|src=\")(?![a-z]+:|#)([^)\"#\s]+)(#[^)\"\s]*)?(?=[)\"])")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links to where things are on the site, and put the YAML files that the page links to below it."""
    sources = {site: source for source, site in ELSEWHERE.items()}
    place = posixpath.dirname(sources.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
    shown: dict[str, str] = {}

    def moved(link: re.Match[str]) -> str:
        before, path, anchor = link[1], link[2], link[3] or ""
        target = posixpath.normpath(posixpath.join(place, path))
        if target in ELSEWHERE:
            return f"{before}{ELSEWHERE[target]}{anchor}"
        if target.startswith("docs/"):
            return f"{before}{target.removeprefix('docs/')}{anchor}"
        if target.endswith(".yml") and (ROOT / target).is_file():
            shown[target] = re.sub(r"\W+", "-", target)
            return f"{before}#{shown[target]}"
        return f"{before}{path}{anchor}"  # mkdocs says what leads nowhere

    text = _LINK.sub(moved, markdown)
    for file, anchor in shown.items():
        yaml = (ROOT / file).read_text(encoding="utf-8").rstrip()
        indented = "\n".join(f"    {line}".rstrip() for line in yaml.splitlines())
        text += f'\n\n<a id="{anchor}"></a>\n\n??? example "{file}"\n\n    ```yaml\n{indented}\n    ```\n'
    return text
