"""What somebody who has never been here does to chat and vote: write, send, judge, and nothing before that."""

from playwright.async_api import Page, expect


async def chat_and_vote(page: Page, url: str) -> None:
    """From an empty window to the word that the vote counts, without one look at anything else."""
    await page.goto(url)
    await expect(page.get_by_role("textbox", name="Your message")).to_be_focused()
    await page.keyboard.type("What is a gate?")
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Good answer", exact=True).click()
    await expect(page.locator(".answer")).to_contain_text("counted, thank you")
