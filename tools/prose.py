"""How plainly pages are written: python tools/prose.py nbs/rl/06_harpo.ipynb …

Words that speak to the reader, the length of a sentence, and the share of sentences that are too long."""

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

LONG = 30  # Words of a sentence that is hard to follow
READER = re.compile(r"\b(you|we|let['’]s)\b", re.IGNORECASE)
WORD = re.compile(r"[\w'’]+")
PARAGRAPH = re.compile(r'\n\s*\n|\n\s*[-*] |\n\d+\. ')
SENTENCE = re.compile(r'(?<=[.!?:])\s+(?=[A-Z"*(])')
# Patterns that are no prose, and what stands for them
NO_PROSE = [
    (re.compile(r'```.*?```', re.DOTALL), ' '),
    (re.compile(r'\$\$.*?\$\$', re.DOTALL), ' '),
    (re.compile(r'\$[^$\n]*\$'), 'x'),
    (re.compile(r'^\s*\|.*$', re.MULTILINE), ' '),
    (re.compile(r'\[([^\]]*)\]\([^)]*\)'), r'\1'),
    (re.compile(r'`[^`]*`'), 'x'),
    (re.compile(r'^#+ .*$', re.MULTILINE), ' '),
]


class Prose(NamedTuple):
    "Counts of some prose."

    words: int
    reader: int  # Times that it says you, we or let's
    sentences: int
    long: int  # Sentences of more than `LONG` words

    def told(self) -> str:
        "The counts as a sentence."
        reader = 1000 * self.reader / max(self.words, 1)
        length = self.words / max(self.sentences, 1)
        share = self.long / max(self.sentences, 1)
        return (
            f'{self.words} words, you/we {reader:.1f} per 1,000, {length:.1f} words a sentence, {share:.0%} over {LONG}'
        )


def prose_of(
    path: Path,  # Notebook
) -> str:
    "The prose of a notebook, without code, formulas, tables and headings."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    text = '\n\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'markdown')
    for pattern, instead in NO_PROSE:
        text = pattern.sub(instead, text)
    return text


def counted(
    text: str,  # Prose
) -> Prose:
    "Counts of words, sentences and what speaks to the reader."
    sentences = [one for paragraph in PARAGRAPH.split(text) for one in SENTENCE.split(paragraph.strip())]
    lengths = [len(WORD.findall(sentence)) for sentence in sentences]
    lengths = [length for length in lengths if length]
    long = sum(length > LONG for length in lengths)
    return Prose(sum(lengths), len(READER.findall(text)), len(lengths), long)


def main(*names):
    parts = [counted(prose_of(Path(name))) for name in names]
    for name, part in zip(names, parts):
        sys.stdout.write(f'{name}: {part.told()}\n')
    if len(parts) > 1:
        total = Prose(*map(sum, zip(*parts)))
        sys.stdout.write(f'all: {total.told()}\n')


if __name__ == '__main__':
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
