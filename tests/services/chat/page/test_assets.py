"""What `/` answers and names."""

import hashlib
import json
import posixpath
import re
from importlib.resources import files
from pathlib import Path

import pytest

from rlhf_online.config import ChatSettings
from rlhf_online.watch.monitors import MONITORS
from services.chat.page import assets
from tests.support.chat_service import Service

HTML = "\n".join(assets.read().html.values())
SOURCES = {name: content.decode() for name, content in assets.read().assets.items()}
VENDOR = Path(str(files("services.chat.page"))) / "vendor"
ROOT = Path(__file__).parents[4]
URL = re.compile(r"""(?:https?:)?//[\w.-]+\.\w+""")


async def test_the_page_names_all_that_it_is_made_of(service: Service) -> None:
    async with service.session.get(service.url + "/") as response:
        html, headers = await response.text(), response.headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["cache-control"] == "no-cache"
    [place] = set(re.findall(r"page/[0-9a-f]{16}", html))
    named = set(re.findall(r'="page/[0-9a-f]{16}/([^"]+)"', HTML))
    for name, source in SOURCES.items():
        imported = re.findall(r'\bfrom "(\.[^"]+)"', source)
        named |= {posixpath.normpath(posixpath.join(posixpath.dirname(name), other)) for other in imported}
    assert named == {name for name in SOURCES if not name.endswith(".json")}
    for name, source in SOURCES.items():
        async with service.session.get(f"{service.url}/{place}/{name}") as response:
            assert (response.status, await response.text()) == (200, source)
            assert response.headers["x-content-type-options"] == "nosniff"
            assert "immutable" in response.headers["cache-control"]
            assert response.content_type == assets.media_type(name).partition(";")[0]


@pytest.mark.parametrize("name", ["page.html", "assets.py", "..%2Fassets.py", "nothing.js", "%00"])
async def test_nothing_else_is_served(service: Service, name: str) -> None:
    async with service.session.get(f"{service.url}/page/{assets.read().digest}/{name}") as response:
        assert response.status == 404


async def test_the_files_of_another_release_are_not_these(service: Service) -> None:
    async with service.session.get(f"{service.url}/page/{'0' * 16}/main.js") as response:
        assert response.status == 404
        assert (await response.json(content_type=None))["error"]["code"] == "not_found"


def test_nothing_comes_from_elsewhere() -> None:
    """The addresses that stand in it are a namespace's, and those where the icons and the charts come from."""
    found = {url for source in (HTML, *SOURCES.values()) for url in URL.findall(source)}
    assert found <= {"http://www.w3.org", "https://feathericons.com", "https://github.com"}


def test_what_others_wrote_is_what_they_released() -> None:
    """Their files have the digests that scripts/vendor.sh wrote, in the version that it names, with their licences."""
    sums = (VENDOR / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in map(str.split, sums)}
    there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.*")}
    assert there == listed
    [version] = re.findall(r"VERSION=([\d.]+)", (ROOT / "scripts" / "vendor.sh").read_text())
    assert f"uPlot (v{version})" in SOURCES["vendor/uPlot.iife.min.js"][:100]
    assert "Permission is hereby granted" in SOURCES["vendor/uPlot.LICENSE.txt"]


def test_a_language_says_all_that_another_says() -> None:
    words = {name: json.loads(source) for name, source in SOURCES.items() if name.endswith(".json")}
    assert set(words) == {"de.json", "en.json"}
    for name, said in words.items():
        assert list(said) == list(words["en.json"]), name
        for key, text in said.items():
            assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", words["en.json"][key])), (name, key)


def test_every_word_that_is_asked_for_is_there_and_no_other() -> None:
    scripts = "\n".join(source for name, source in SOURCES.items() if name.endswith(".js"))
    named = set(re.findall(r"\b(\w+): ", scripts))  # a choice's words are its key
    named |= set(re.findall(r'data-t[\w-]*="([\w.]+)"', HTML)) | set(re.findall(r'"([\w.]+)"', scripts))
    words = set(json.loads(SOURCES["en.json"]))
    reasons = ChatSettings.model_fields["reasons"].default
    by_value = ("tag.", "became.", "role.", "state.", "engine.", "phase.", "connection.", "monitor.")
    assert {word for word in words if not word.startswith(by_value)} - {"name"} <= named
    assert {word for word in words if word.startswith("tag.")} == {f"tag.{tag}" for tag in reasons}
    assert {word for word in words if word.startswith("monitor.")} == {f"monitor.{name}" for name in MONITORS}
    asked = set(re.findall(r'data-t[\w-]*="([\w.]+)"', HTML)) | set(re.findall(r'\bt\("([\w.]+)"', scripts))
    assert asked <= words
