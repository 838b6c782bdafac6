"Links of the built site that lead nowhere."

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote


class Page(HTMLParser):
    "Links and anchors of a built page."

    def __init__(
        self,
        path: Path,  # Built page
    ):
        super().__init__()
        self.links = []
        self.anchors = set()
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        "Note what an element is called and where it leads."
        found = dict(attrs)
        self.anchors |= {found[key] for key in ('id', 'name') if found.get(key)}
        if tag != 'link':
            self.links += [found[key] for key in ('href', 'src') if found.get(key)]


def broken_links(
    site: Path,  # Folder of the built site
) -> Iterator[str]:  # Page and link
    "Links of the site to pages or anchors that are not there."
    site = site.resolve()
    pages = {path: Page(path) for path in site.rglob('*.html')}
    for path, page in pages.items():
        for link in page.links:
            if re.match(r'[a-z]+:', link):
                continue
            target, _, anchor = unquote(link.split('?')[0]).partition('#')
            file = (path.parent / target).resolve() if target else path
            no_anchor = anchor and file in pages and anchor not in pages[file].anchors
            if no_anchor or not file.exists():
                yield f'{path.relative_to(site)}: {link}'
