"""The pages' files, as they are served: read once, and named by a digest of them all.

A page (`/` is page.html) is asked for again at each visit and names the rest under `/page/DIGEST/`, where what was once
fetched never changes: it is cached for good, and a new release is a new name. Only the files of this list are served.
What other people wrote lies in `vendor/` as they released it, with its licence and its digests (scripts/vendor.sh).
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePath
from string import Template

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
NOT_SNIFFED = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
PAGE_HEADERS = {
    # Scripts, styles and requests of this service alone; no script makes markup of a string (Trusted Types).
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cache-Control": "no-cache",
    **NOT_SNIFFED,
}
ASSET_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable", **NOT_SNIFFED}


@dataclass(frozen=True, slots=True)
class Pages:
    """`html`: what each page answers; `assets`: what they name; both by path here. `digest`: of all assets."""

    html: dict[str, str]
    assets: dict[str, bytes]
    digest: str


def read(reasons: Sequence[str] = ()) -> Pages:
    """The pages as they lie in this folder; `reasons` are the tags by which a vote may say why.

    A language is a JSON file: one more is one more file.
    """
    found = dict(sorted(_files(files("services.chat.page"))))
    assets = {name: entry.read_bytes() for name, entry in found.items() if PurePath(name).suffix in TYPES}
    digest = hashlib.sha256(repr(sorted(assets.items())).encode()).hexdigest()[:16]
    languages = " ".join(PurePath(name).stem for name in assets if name.endswith(".json"))
    values = {"assets": f"page/{digest}", "languages": languages, "reasons": escape(" ".join(reasons))}
    pages = {name: entry.read_text(encoding="utf-8") for name, entry in found.items() if name.endswith(".html")}
    return Pages({name: Template(page).substitute(values) for name, page in pages.items()}, assets, digest)


def _files(folder: Traversable, place: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{place}{entry.name}/")
        else:
            yield place + entry.name, entry


def media_type(name: str) -> str:
    """Of an asset."""
    return TYPES[PurePath(name).suffix]
