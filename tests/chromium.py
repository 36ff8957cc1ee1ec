"""A real Chromium, and pages of it as those of a person who has opened Lab before: what it has compiled is kept.

Lab is ten megabytes of JavaScript, and most of a page's first seconds is their translation. A context of Playwright forgets it, and
the suite opens Lab dozens of times; so there is one profile on disk, which one page at a time uses. A page beside it, or
in another language, has a context of its own, as have the tests that open Lab as somebody new does.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from weakref import WeakKeyDictionary

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LOCALE = "en-US"
LIMIT_MS = 150_000
# The browser's sandbox does not work in a container, and the pages shown here are trusted.
ARGUMENTS = ("--no-sandbox",)
_ends: WeakKeyDictionary[Browser, ExitStack] = WeakKeyDictionary()
_profiles: WeakKeyDictionary[Browser, BrowserContext] = WeakKeyDictionary()


def program() -> str:
    """The machine's own Chromium, because Playwright's cannot be downloaded everywhere."""
    return next(path for name in BROWSERS if (path := shutil.which(name)))


@contextmanager
def chromium() -> Iterator[Browser]:
    # Playwright's own limit is five seconds.
    expect.set_options(timeout=LIMIT_MS)
    with sync_playwright() as playwright, ExitStack() as profiles:
        browser = playwright.chromium.launch(executable_path=program(), args=ARGUMENTS)
        _ends[browser] = profiles
        try:
            yield browser
        finally:
            browser.close()


def profile_of(browser: Browser) -> BrowserContext:
    """The one that pages of Lab use; its process is started with the first of them."""
    if browser not in _profiles:
        folder = tempfile.TemporaryDirectory(prefix="tuttilab-profile-", ignore_cleanup_errors=True)
        path = _ends[browser].enter_context(folder)
        profile = browser.browser_type.launch_persistent_context(path, executable_path=program(), args=ARGUMENTS, locale=LOCALE)
        _ends[browser].callback(profile.close)
        _profiles[browser] = profile
    return _profiles[browser]


def new_page(browser: Browser, url: str, *, width: int, height: int, locale: str = LOCALE) -> Page:
    """At ``url``, with nothing stored by an earlier page. `close_page` ends it."""
    profile = profile_of(browser)
    # It has an empty page of its own, without which it would end.
    is_free = len(profile.pages) == 1 and locale == LOCALE
    context = profile if is_free else browser.new_context(locale=locale)
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": height})
    page.set_default_timeout(LIMIT_MS)
    page.goto(url)
    return page


def close_page(page: Page) -> None:
    """With all that it has opened, and without a trace but what was compiled."""
    context = page.context
    if context not in _profiles.values():
        context.close()
        return
    session = context.new_cdp_session(context.pages[0])
    for url in {one.url for one in context.pages if one.url.startswith("http")}:
        stored = "cookies,file_systems,indexeddb,local_storage,service_workers,cache_storage"
        session.send("Storage.clearDataForOrigin", {"origin": "/".join(url.split("/")[:3]), "storageTypes": stored})
    session.detach()
    for one in context.pages[1:]:
        one.close()
    context.clear_cookies()
    context.clear_permissions()
