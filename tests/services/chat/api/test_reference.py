"""`/docs`: every operation, field and error of `/openapi.json`, as a page that needs nothing from elsewhere."""

import base64
import hashlib
from html.parser import HTMLParser

from services.chat.api.openapi import document
from services.chat.api.reference import page
from tests.support.chat_service import Service


class Read(HTMLParser):
    """The ids, links and texts of a page, and the tags that could fetch something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("id", "href"):
                (self.ids if name == "id" else self.links).add(value or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_every_operation_and_field_is_on_it() -> None:
    read = Read(page())
    text = set(read.words)
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in text and operation["operationId"] in read.ids
            assert operation["summary"] in text
            assert {answer["description"] for answer in operation["responses"].values()} <= text
    for name, schema in document()["components"]["schemas"].items():
        assert f"schema-{name}" in read.ids
        for field, values in schema["properties"].items():
            assert field in text and values["description"] in text


def test_its_links_lead_somewhere() -> None:
    read = Read(page())
    assert {link.removeprefix("#") for link in read.links} - read.ids == {"openapi.json"}
    assert not read.tags & {"script", "img", "link", "iframe"}


async def test_its_policy_allows_its_own_style_alone(service: Service) -> None:
    async with service.session.get(service.url + "/docs") as response:
        html, policy = await response.text(), response.headers["content-security-policy"]
    style = html.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
