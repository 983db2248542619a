#!/usr/bin/env python3
"""Makes a site of docs/ with mdbook: scripts/book.py FOLDER.

Pages link to other files of the repository, as they do on GitHub. Those come with the site: pages of the root as chapters,
everything else as files, and a folder as a list of its files.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)\s]+)\)")
MDBOOK = os.environ.get("MDBOOK") or max((ROOT / ".tools/mdbook").glob("*/mdbook"), default="mdbook")


class Book:
    def __init__(self, folder):
        self.sources = folder / "src"
        self.extra = {}  # a file of the repository: its place in the book

    def place(self, target):
        """Where a file of the repository is in the book; brings it there if it is not in docs/."""
        if target == DOCS / "SUMMARY.md":
            return Path("index.md")  # the contents stand beside every page
        if target.is_relative_to(DOCS):
            return target.relative_to(DOCS)
        if target not in self.extra:
            name = target.relative_to(ROOT)
            # mdbook takes every README for the index of its folder.
            place = Path("repository") / name.with_name(name.name.replace("README", "about"))
            if target.is_dir():
                place = place / "files.md"
            self.extra[target] = place
            (self.sources / place).parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                files = sorted(file for file in target.rglob("*") if file.is_file())
                lines = [f"- [{file.relative_to(target)}]({os.path.relpath(file, target)})" for file in files]
                self.write(target / "files.md", place, f"# {name}\n\n" + "\n".join(lines) + "\n")
            elif target.suffix == ".md":
                self.write(target, place, target.read_text())
            else:
                shutil.copy(target, self.sources / place)
        return self.extra[target]

    def write(self, origin, place, text):
        """Writes a page of `origin` to `place`, its links to files leading into the book."""

        def lead(match):
            path, _, anchor = match[1].partition("#")
            target = (origin.parent / path).resolve()
            if not path or "://" in match[1] or not target.exists() or not target.is_relative_to(ROOT):
                return match[0]
            link = os.path.relpath(self.place(target), place.parent)
            return f"]({link}{'#' if anchor else ''}{anchor})"

        (self.sources / place).parent.mkdir(parents=True, exist_ok=True)
        (self.sources / place).write_text(LINK.sub(lead, text))


def main():
    out = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        book = Book(folder)
        for file in DOCS.rglob("*"):
            place = file.relative_to(DOCS)
            if file.suffix == ".md":
                book.write(file, place, file.read_text())
            elif file.is_file():
                (book.sources / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, book.sources / place)
        summary = book.sources / "SUMMARY.md"
        chapters = [place for place in book.extra.values() if place.suffix == ".md"]
        lines = [f"- [{'/'.join(place.parts[1:]).removesuffix('/files.md')}]({place})" for place in sorted(chapters)]
        summary.write_text(summary.read_text() + "\n# Repository\n\n" + "\n".join(lines) + "\n")
        shutil.copy(ROOT / "book.toml", folder)
        subprocess.run([MDBOOK, "build", folder, "--dest-dir", out], check=True)
    print(f"the documentation is in {out}: open {out}/index.html")


main()
