"The glossary's words, linked where a page first uses them."

import re

# Words that pages also use in their everyday sense, or that the glossary has twice
COMMON = set(
    (
        'adapter baseline box clip contribution control domain exact factor form format group head key level '
        'majority paired rank ratio reasoning recipe reference rejected rejection row rule scale share signature '
        'similarity source split target task'
    ).split()
)
NO_PROSE = (
    r'(?s:^(?:```|:::).*?^(?:```|:::)[^\n]*$)',  # Fences
    r'^[#>|][^\n]*$',  # Headings, leads, tables
    r'^Also: [^\n]*$',
    r'\$\$(?s:.*?)\$\$',  # Formulas
    r'\$[^$\n]+\$',
    r'`[^`\n]+`',  # Code
    r'!?\[[^\]]*\]\([^)]*\)',  # Links
    r'<a\b(?s:.*?)</a>',
    r'<[^>\n]+>',
    r'https?://\S+',
)


def slug(
    heading: str,  # Of the glossary
) -> str:
    "The anchor that Sphinx gives a heading."
    letters = re.sub(r'[^\w\s-]', '', heading.lower())
    return re.sub(r'\s', '-', letters.strip())


def words(
    glossary: str,  # Markdown
) -> dict[str, str]:  # Word to anchor
    "Every term and other name of the glossary's text, with the anchor that explains it."
    found = {}
    for heading, also in re.findall(r'^### (.+)\n+(?:Also: (.+))?', glossary, re.M):
        names = [re.sub(r' \(.*', '', heading), *also.split(', ')]
        for name in names:
            if name and name not in COMMON:
                found.setdefault(name, slug(heading))
    return found


def either_case(
    word: str,  # Of the glossary
) -> str:
    "What matches a word, also at the start of a sentence."
    if not word.islower():
        return re.escape(word)
    return f'[{word[0].upper()}{word[0]}]' + re.escape(word[1:])


def pattern(
    found: dict[str, str],  # From `words`
) -> re.Pattern:
    "What matches a term, in the plural too and at the start of a sentence, or something to leave alone."
    longest_first = sorted(found, key=len, reverse=True)
    skip = '|'.join(NO_PROSE)
    term = '|'.join(map(either_case, longest_first))
    return re.compile(rf'(?P<skip>{skip})|(?<![\w-])(?P<term>{term})(?P<plural>s?)(?![\w-])', re.M)


class Terms:
    "Links to the glossary, each once per page."

    def __init__(
        self,
        glossary: str,  # Markdown
    ):
        self.found = words(glossary)
        self.pattern = pattern(self.found)

    def anchor(self, term):
        "The anchor of a term as a page writes it."
        if term in self.found:
            return self.found[term]
        return self.found[term[0].lower() + term[1:]]

    def link(
        self,
        source: str,  # Markdown
        seen: set[str],  # Anchors that the page has linked so far; added to
        up: str,  # Way from the page to the site's root
    ) -> str:
        "Prose with its first uses linked."

        def one(match):
            if match['skip'] is not None:
                return match[0]
            anchor = self.anchor(match['term'])
            if anchor in seen:
                return match[0]
            seen.add(anchor)
            return f'<a class="term" href="{up}glossary.html#{anchor}">{match[0]}</a>'

        return self.pattern.sub(one, source)
