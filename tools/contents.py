"The navigation of the site: the learning path, pages to look things up, every room as one entry that opens."

from pathlib import Path
from typing import NamedTuple


class Part(NamedTuple):
    "A folder of notebooks that is one entry of the navigation."

    title: str
    about: str  # One sentence or two, under the title
    inside: str = ''  # The part whose entry this one is in; at the top where it is empty


LOOK_UP = (
    'pieces',
    'glossary',
    'estimators',
    'cli',
    'command',
    'colab',
    'release',
    'notebooks',
)  # Pages at the top of nbs/
PARTS = {
    'atlas': Part('The Atlas', 'How annotation files, sound and video become one table of rows that a model can read.'),
    'atlas/sources': Part(
        'Sources, one by one',
        'Each page reads the files of one source and explains the choices behind its labels, groups and splits.',
        'atlas',
    ),
    'atlas/mini': Part(
        'Sources in miniature',
        'Each page writes a small synthetic folder in the format of one source, so that you can run everything '
        'without the original files.',
        'atlas/sources',
    ),
    'sft': Part(
        'Supervised fine-tuning', 'The model and its processor, the warm start, classification heads, LoRA and BAM.'
    ),
    'rl': Part(
        'Reinforcement learning',
        'From the policy gradient to HARPO, then the training loop, TRL, verl and how much memory a run takes.',
    ),
    'evaluation': Part('Evaluation', 'How answers are read, scored, graded by a judge, compared and reported.'),
    'runs': Part('Runs', 'What each command does: it reads a recipe or a folder, and leaves a folder.'),
    'studies': Part('Studies', 'Methods compared over paired seeds: how the runs were made, and what came out.'),
    'guides': Part('Guides', 'How to do one thing: your own data, your own model, a GPU, another trainer.'),
}
ROOMS = {name: part.title for name, part in PARTS.items() if not part.inside}


class Lesson(NamedTuple):
    "A page as a list shows it."

    name: str  # Below the root of the site, without suffix
    title: str
    promise: str


def lesson(
    name: str,  # Of the page
    source: str,  # Of its title cell
) -> Lesson:
    "A page with its title and its promise."
    title, promise = source.split('\n\n')[:2]
    return Lesson(name, title.removeprefix('# ').strip(), promise.removeprefix('> ').strip())


def folder_of(
    name: str,  # Of a page
) -> str:  # Empty for a page at the top
    "The folder that a page lies in."
    return name.rpartition('/')[0]


def toctree(
    entries: list[str],  # Pages, or `title <page>`
    *options: str,  # Of the directive, such as `:hidden:`
) -> str:  # Markdown
    "A table of contents for Sphinx."
    return '\n'.join(['```{toctree}', *options, '', *entries, '```'])


def listed(
    lesson: Lesson,  # Of the list
    up: str,  # Way from the page of the list to the site's root
    is_on_path: bool,  # Whether it is marked
) -> str:  # Markdown
    "A page with its promise as an item of a list."
    mark = ' <span class="mark">learning path</span>' if is_on_path else ''
    return f'- <a href="{up}{lesson.name}.html">{lesson.title}</a>{mark}<br>{lesson.promise}'


class Contents:
    "Which page is in which part of the navigation."

    def __init__(
        self,
        lessons: list[Lesson],  # All pages made from notebooks, in reading order
        path: list[str],  # Names of the pages of the learning path
        reference: list[str],  # Names of the indices of the reference
    ):
        self.lessons = lessons
        self.path = path
        self.reference = reference

    def pages_in(self, folder):
        "Pages of one folder, those of the learning path included."
        return [lesson for lesson in self.lessons if folder_of(lesson.name) == folder]

    def parts_in(self, part):
        "Entries that open inside the entry of a part; at the top where `part` is empty."
        return [f'{name}/index' for name, inner in PARTS.items() if inner.inside == part]

    def index(self, name):
        "The page of a part: what it is about, every page with its promise, and its entries of the navigation."
        part = PARTS[name]
        up = '../' * (name.count('/') + 1)
        pages = self.pages_in(name)
        items = [listed(lesson, up, lesson.name in self.path) for lesson in pages]
        for inner in self.parts_in(name):
            below = PARTS[inner.removesuffix('/index')]
            items.append(listed(Lesson(inner, below.title, below.about), up, False))
        entries = [lesson.name for lesson in pages if lesson.name not in self.path] + self.parts_in(name)
        hidden = toctree([f'/{entry}' for entry in entries], ':hidden:')
        return '\n\n'.join([f'# {part.title}', part.about, '\n'.join(items), hidden]) + '\n'

    def root(self):
        "What stands at the end of the front page: all parts of the navigation."
        trees = {
            'Learning path': ['Front page <self>', *self.path],
            'Look up': list(LOOK_UP),
            'All pages by room': self.parts_in(''),
            'Reference': self.reference,
        }
        parts = [toctree(entries, ':hidden:', f':caption: {caption}') for caption, entries in trees.items()]
        return '\n\n'.join(parts)

    def write(
        self,
        folder: Path,  # Where Sphinx reads
    ):
        "Write the page of every part."
        for name in PARTS:
            (folder / name / 'index.md').write_text(self.index(name), encoding='utf-8')
