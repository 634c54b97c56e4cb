"""Answers as the page shows them: Markdown as nodes, and nothing in it that acts."""

import pytest
from playwright.async_api import expect

from tests.services.chat.page.conftest import Visit
from tests.support.chat_service import Service
from tests.support.chromium import saying

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHOWN = {
    "# One\n\ntext *em* **strong** ***both*** ~~gone~~ `a < b`": "<h3>One</h3><p>text <em>em</em> "
    "<strong>strong</strong> <strong><em>both</em></strong> <del>gone</del> <code>a &lt; b</code></p>",
    "snake_case_name and 2 * 3 * 4 and \\*not\\* and __bold__": "<p>snake_case_name and 2 * 3 * 4 and *not* and "
    "<strong>bold</strong></p>",
    "- a\n- b\n  - c\n  - d\n- e": "<ul><li>a</li><li>b<ul><li>c</li><li>d</li></ul></li><li>e</li></ul>",
    "3. a\n4. b": '<ol start="3"><li>a</li><li>b</li></ol>',
    "1. a\n\n   more\n2. b": '<ol start="1"><li><p>a</p><p>more</p></li><li><p>b</p></li></ol>',
    "text\n- a": "<p>text</p><ul><li>a</li></ul>",
    "> said\n> *so*\n\n---": "<blockquote><p>said\n<em>so</em></p></blockquote><hr>",
    "| a | b |\n|---|:-:|\n| 1 | `2` |\n| 3 |": "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody>"
    "<tr><td>1</td><td><code>2</code></td></tr><tr><td>3</td><td></td></tr></tbody></table>",
    "~~~\n# no heading\n\n```\n~~~": "<pre><code># no heading\n\n```</code></pre>",
    "```py\nunfinished = True": "<pre><code>unfinished = True</code></pre>",
    "[a](https://b.example/c_(d)) https://e.example/f.": '<p><a href="https://b.example/c_(d)">a</a> '
    '<a href="https://e.example/f">https://e.example/f</a>.</p>',
    "![a](https://b.example/c.png)": '<p><a href="https://b.example/c.png">a</a></p>',
    "5 < 6 & 7 > *unclosed": "<p>5 &lt; 6 &amp; 7 &gt; *unclosed</p>",
    "": "",
}
RENDER = """async ([assets, text]) => {
    const { show } = await import(`./${assets}/markdown.js`);
    const box = document.createElement("div");
    show(box, text);
    for (const node of box.querySelectorAll(".bar")) node.remove();
    for (const node of box.querySelectorAll("div")) node.replaceWith(...node.childNodes);
    for (const node of box.querySelectorAll("*"))
        for (const name of ["target", "rel", "tabindex"]) node.removeAttribute(name);
    return box.innerHTML;
}"""
ACTIVE = [
    "<script>document.title = 'acted'</script>",
    "<img src=x onerror=\"document.title = 'acted'\">",
    "<svg onload=\"document.title = 'acted'\"></svg>",
    "<b onclick=\"document.title = 'acted'\">b</b>",
    "[a](javascript:document.title='acted')",
    "[a](JaVaScRiPt&colon;document.title='acted')",
    "[a](\tjavascript:document.title='acted')",
    "[a](data:text/html,<script>document.title='acted'</script>)",
    "[a](vbscript:x)",
    "<javascript:document.title='acted'>",
    "![a](x\" onerror=\"document.title='acted')",
    "```html\"><script>document.title='acted'</script>\n<script>document.title='acted'</script>\n```",
    "[a](https://b.example/\" onclick=\"document.title='acted')",
    "| <script>document.title='acted'</script> |\n|---|\n| <img src=x onerror=document.title='acted'> |",
    "https://b.example/\"onmouseover=\"document.title='acted'",
]


async def test_markdown_is_shown(site: Service, visitors: Visit) -> None:
    visitor = await visitors(site.url)
    place = await visitor.page.evaluate("document.body.dataset.assets")
    for text, shown in SHOWN.items():
        assert await visitor.page.evaluate(RENDER, [place, text]) == shown, text


async def test_what_grows_is_shown_as_what_came_at_once(site: Service, visitors: Visit) -> None:
    """Letter by letter, and blocks that are whole keep their nodes."""
    visitor = await visitors(site.url)
    kept = """async ([assets, text]) => {
        const { show } = await import(`./${assets}/markdown.js`);
        const [grown, whole] = [document.createElement("div"), document.createElement("div")];
        let first = null;
        for (let end = 0; end <= text.length; end++) {
            show(grown, text.slice(0, end));
            if (end === text.indexOf("\\n\\n") + 3) first = grown.firstChild;
        }
        show(whole, text);
        return [grown.innerHTML === whole.innerHTML, grown.firstChild === first];
    }"""
    place = await visitor.page.evaluate("document.body.dataset.assets")
    text = "A *first* block.\n\n" + "\n\n".join(filter(None, SHOWN))
    assert await visitor.page.evaluate(kept, [place, text]) == [True, True]


async def test_nothing_in_an_answer_acts(site: Service, visitors: Visit) -> None:
    """Each line as an answer: no element but Markdown's own, no handler, no link but to the web, and no request."""
    visitor = await visitors(site.url)
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    site.engine.answers = saying("\n\n".join(ACTIVE))
    answer = (await visitor.ask(ACTIVE[1])).locator(".part > .markdown")
    for text in ("acted'</script>", "onerror", "onload", "javascript:"):
        await expect(answer).to_contain_text(text)
    tags = await answer.evaluate("box => [...new Set([...box.querySelectorAll('*')].map((n) => n.localName))].sort()")
    assert set(tags) <= {"a", "p", "div", "pre", "code", "span", "button", "svg", "path", "table"} | {
        *("thead", "tbody", "tr", "th", "td")
    }
    attributes = await answer.evaluate(
        "box => [...box.querySelectorAll('*')].flatMap((n) => n.getAttributeNames()).filter((n) => n.startsWith('on'))"
    )
    assert attributes == []
    links = await answer.evaluate("box => [...box.querySelectorAll('a')].map((a) => a.protocol)")
    assert set(links) == {"https:"}
    for link in await answer.locator("a").all():
        assert "noopener" in (await link.get_attribute("rel") or "")
    assert await visitor.page.title() != "acted"
    assert all(url.startswith(site.url) for url in asked)


async def test_the_policy_refuses_what_a_script_would_slip_in(site: Service, visitors: Visit) -> None:
    """The second wall: were markup ever made of a string, the browser would refuse it."""
    visitor = await visitors(site.url)
    refused = """() => {
        try { document.body.innerHTML = "<b>x</b>"; } catch (error) { return error.name; }
        return "taken";
    }"""
    assert await visitor.page.evaluate(refused) == "TypeError"
    assert visitor.complaints != []
    visitor.complaints.clear()
