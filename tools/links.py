"Links of the built site that lead nowhere."

import re
from html.parser import HTMLParser
from urllib.parse import unquote


class Page(HTMLParser):
    "Links and anchors of a built page."

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[k] for k in ('id', 'name') if found.get(k)}
        self.links += [found[k] for k in ('href', 'src') if found.get(k) and tag != 'link']


def broken_links(site):
    "Links of the site to pages or anchors that are not there."
    site = site.resolve()
    pages = {p: Page(p) for p in site.rglob('*.html')}
    for path, page in pages.items():
        for link in page.links:
            if re.match(r'[a-z]+:', link):
                continue
            target, _, anchor = unquote(link.split('?')[0]).partition('#')
            file = (path.parent / target).resolve() if target else path
            if not file.exists() or (anchor and file in pages and anchor not in pages[file].anchors):
                yield f'{path.relative_to(site)}: {link}'
