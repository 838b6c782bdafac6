"The glossary's words, linked where a page first uses them."

import re

# Words that pages also use in their everyday sense, or that the glossary has twice
COMMON = set(
    """adapter baseline box clip contribution control domain exact factor form format group head key level majority paired
    rank ratio reasoning recipe reference rejected rejection row rule scale share signature similarity source split target task""".split()
)
# What holds no prose: fences, headings and leads and tables, formulas, code, links, HTML
SKIP = r'(?s:^(?:```|:::).*?^(?:```|:::)[^\n]*$)|^[#>|][^\n]*$|^Also: [^\n]*$|\$\$(?s:.*?)\$\$|\$[^$\n]+\$|`[^`\n]+`|!?\[[^\]]*\]\([^)]*\)|<a\b(?s:.*?)</a>|<[^>\n]+>|https?://\S+'


def slug(heading):
    return re.sub(r'\s', '-', re.sub(r'[^\w\s-]', '', heading.lower()).strip())


def words(glossary):
    "Every term and other name of the glossary's text, with the anchor that explains it."
    found = {}
    for heading, also in re.findall(r'^### (.+)\n+(?:Also: (.+))?', glossary, re.M):
        for name in [re.sub(r' \(.*', '', heading), *re.split(r', ', also or '')]:
            if name and name not in COMMON:
                found.setdefault(name, slug(heading))
    return found


def pattern(found):
    "What matches a term, in the plural too and at the start of a sentence, or something to leave alone."

    def first(w):
        return f'[{w[0].upper()}{w[0]}]' + re.escape(w[1:]) if w.islower() else re.escape(w)

    each = '|'.join(first(w) for w in sorted(found, key=len, reverse=True))
    return re.compile(rf'(?P<skip>{SKIP})|(?<![\w-])(?P<term>{each})(?P<plural>s?)(?![\w-])', re.M)


class Terms:
    "Links to the glossary, each once per page."

    def __init__(self, glossary):
        self.found = words(glossary)
        self.pattern = pattern(self.found)

    def link(self, source, seen, up):
        "Prose with its first uses linked; `seen` is what the page has linked so far."

        def one(m):
            if m['skip'] is not None:
                return m[0]
            word = m['term'] if m['term'] in self.found else m['term'][0].lower() + m['term'][1:]
            if (anchor := self.found[word]) in seen:
                return m[0]
            seen.add(anchor)
            return f'<a class="term" href="{up}glossary.html#{anchor}">{m[0]}</a>'

        return self.pattern.sub(one, source)
