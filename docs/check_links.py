"""Checks the links of the built site: every file exists, and every anchor in it.

python docs/check_links.py build/site

Links to other hosts are not followed.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page and the anchors that it has."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)


def main(site):
    site = site.resolve()
    paths = [path for path in site.rglob("*.html") if path.parent.name != "_static"]
    pages = {path: Page(path) for path in paths}
    broken, checked = [], 0
    for path, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            checked += 1
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            anchor = unquote(url.fragment)
            has_anchor = not anchor or (
                target in pages and anchor in pages[target].anchors
            )
            if not target.is_file() or not has_anchor:
                broken.append(f"{path.relative_to(site)}: {link}")
    if not pages or not checked:
        sys.exit(f"{site} has no pages with links")
    print(f"{checked} links on {len(pages)} pages, {len(broken)} broken")
    sys.exit("\n".join(broken) or 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
