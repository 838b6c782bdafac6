"The site from the notebooks: names linked by nbdev, Sphinx with myst-nb and furo, formulas by a local MathJax."

import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import cells
from contents import ROOMS, Contents, Lesson, lesson
from links import broken_links
from measures import YOU_WILL_LEARN, learning_path, notebooks
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from reference import Reference
from terms import Terms

CONFIG = get_config()
ROOT = Path(CONFIG.config_path)
NBS = ROOT / CONFIG.nbs_path.name
SOURCE = ROOT / '_site_src'
SITE = ROOT / '_site'
REPOSITORY = f'{CONFIG.git_url}/blob/{CONFIG.branch}'
NOTEBOOKS = f'{REPOSITORY}/{NBS.name}'
BASE = CONFIG.doc_host.rstrip('/') + CONFIG.doc_baseurl.rstrip('/') + '/'
MATHJAX = 'mathjax@3.2.2'
SPHINX = f"""
import sys
sys.path.insert(0, {str(ROOT / 'tools')!r})
project = {CONFIG.title!r}
author = {CONFIG.author!r}
copyright = {CONFIG.copyright!r}
version = release = {CONFIG.version!r}
extensions = ['myst_nb', 'sphinx_copybutton', 'sphinx.ext.mathjax', 'navigation']
html_theme, html_title, html_static_path = 'furo', project, ['_static']
html_css_files, html_js_files = ['site.css'], ['site.js']
pygments_style, pygments_dark_style = 'a11y-high-contrast-light', 'a11y-high-contrast-dark'
nb_execution_mode, nb_render_markdown_format = 'off', 'gfm'
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'attrs_inline']
myst_heading_anchors, myst_update_mathjax, mathjax_path = 4, False, 'mathjax/tex-svg.js'
"""


def cells_of(
    path: Path,  # Notebook
    kind: str = '',  # `code` or `markdown`; all where it is empty
) -> list[dict]:
    "Cells of a notebook."
    every = json.loads(path.read_text(encoding='utf-8'))['cells']
    return [cell for cell in every if kind in ('', cell['cell_type'])]


def text_of(
    cell: dict,  # Of any kind
) -> str:
    "The source of a cell as one text."
    return ''.join(cell['source'])


def name_of(
    path: Path,  # Notebook
) -> str:
    "The name of a notebook's page, below the root of the site and without suffix."
    return cells.page_of(path.relative_to(NBS).with_suffix('').as_posix())


class Page:
    "A notebook as a page: title, facts, prose with its links, exported code with anchors, lessons with their outputs."

    def __init__(
        self,
        book: 'Book',  # The page's
        path: Path,  # Notebook
    ):
        place = path.relative_to(NBS)
        self.book = book
        self.notebook = place.with_suffix('').as_posix()
        self.name = cells.page_of(self.notebook)
        self.up = '../' * self.name.count('/')
        self.title, *self.rest = cells_of(path)
        self.code = [cell for cell in self.rest if cell['cell_type'] == 'code']
        self.module = cells.default_module(self.code)
        self.seen = set()  # Terms that have been linked so far

    def source(self, cell):
        "The text of a cell of prose, its names linked by nbdev."
        return self.book.names.linkify(text_of(cell))

    def head(self):
        says_it = any(text_of(cell).startswith(YOU_WILL_LEARN) for cell in self.rest)
        is_lesson = '/' in self.name and not says_it
        source = cells.lead(self.source(self.title), is_lesson)
        yield self.title | dict(source=cells.local_links(source, BASE, self.up))
        yield cells.facts(self.notebook, self.code, self.book.log, self.up)

    def prose(self, cell):
        source = self.source(cell)
        if self.name != 'glossary':
            source = self.book.terms.link(source, self.seen, self.up)
        source = cells.local_links(source, BASE, self.up)
        return cell | dict(source=cells.notebook_links(source, NOTEBOOKS, self.up))

    def shown(self, cell):
        "A code cell, and where it is exported its anchors before it."
        if cells.is_exported(cell):
            module = cells.module_of(cell, self.module)
            yield from cells.anchors(cell, module, self.book.reference.places, self.up)
        made = cells.code_cell(cell)
        for output in made['outputs']:
            data = output.get('data', {})
            if 'text/markdown' in data:
                data['text/markdown'] = cells.notebook_links(''.join(data['text/markdown']), NOTEBOOKS, self.up)
        yield made

    def cells(self) -> Iterator[dict]:
        "The cells of the page."
        yield from self.head()
        for cell in self.rest:
            if cell['id'] == 'colab_badge':
                continue
            if cell['cell_type'] == 'markdown':
                yield self.prose(cell)
            elif not cells.is_hidden(cell):
                yield from self.shown(cell)

    def write(self):
        "Put the page where Sphinx finds it."
        kernel = dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'))
        made = dict(cells=list(self.cells()), metadata=kernel, nbformat=4, nbformat_minor=5)
        file = SOURCE / f'{self.name}.ipynb'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(made), encoding='utf-8')


class Book:
    "What all pages share: the glossary's words, the reference, and what the runs took."

    def __init__(self):
        self.names = NbdevLookup()
        glossary = cells_of(NBS / 'glossary.ipynb', 'markdown')
        self.terms = Terms('\n\n'.join(map(text_of, glossary)))
        self.reference = Reference(ROOT / CONFIG.lib_path.name, REPOSITORY, cells.page_of)
        self.log = json.loads((NBS / 'results' / 'notebooks.json').read_text(encoding='utf-8'))['pinned']

    def write(self) -> Iterator[Lesson]:
        "Write every page; gives what lists show of it."
        for path in notebooks():
            page = Page(self, path)
            page.write()
            yield lesson(page.name, text_of(page.title))


def add_contents(
    source: str,  # From `Contents.root`
):
    "Put the table of contents at the end of the front page."
    index = SOURCE / 'index.ipynb'
    notebook = json.loads(index.read_text(encoding='utf-8'))
    notebook['cells'].append(cells.markdown('contents', source))
    index.write_text(json.dumps(notebook), encoding='utf-8')


def mathjax(
    folder: Path,  # To be made
):
    "MathJax from npm, one file, so that formulas need no network."
    folder.mkdir(parents=True)
    command = ['npm', 'pack', '--silent', MATHJAX]
    result = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    packed = folder / result.stdout.strip()
    with tarfile.open(packed) as archive:
        script = archive.extractfile('package/es5/tex-svg.js').read()
    (folder / 'tex-svg.js').write_bytes(script)
    packed.unlink()


def fix(
    text: str,  # A built page
) -> str:
    """A built page with what screen readers and keyboards need.

    Boxes that scroll take the focus, captions are no headings, and folds are called what they say."""
    text = text.replace('<p class="caption" role="heading">', '<p class="caption">')
    text = text.replace('<summary aria-label="Toggle hidden content">', '<summary>')
    boxes = r'<pre>|<div class="(?:table-wrapper|output text_html)[^>]*>'
    return re.sub(boxes, lambda found: found[0].removesuffix('>') + ' tabindex="0">', text)


def write_source():
    "Write what Sphinx reads: the pages, the reference, the navigation, pictures, style and MathJax."
    book = Book()
    for folder in (SOURCE, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    pages = list(book.write())
    reference = list(book.reference.write(SOURCE, ROOMS))
    contents = Contents(pages, list(map(name_of, learning_path())), reference)
    contents.write(SOURCE)
    add_contents(contents.root())
    mathjax(SOURCE / '_static' / 'mathjax')
    shutil.copytree(NBS / 'images', SOURCE / 'images')
    for name in ('site.css', 'site.js'):
        shutil.copy(Path(__file__).with_name(name), SOURCE / '_static')
    (SOURCE / 'conf.py').write_text(SPHINX, encoding='utf-8')


def build():
    "Let Sphinx make the site, and fix its pages."
    options = ['-W', '--keep-going', '-q', '-b', 'html', '-j', '2']
    subprocess.run([sys.executable, '-m', 'sphinx', *options, SOURCE, SITE], check=True)
    for page in SITE.rglob('*.html'):
        page.write_text(fix(page.read_text(encoding='utf-8')), encoding='utf-8')


def main():
    if not shutil.which('npm'):
        sys.exit('npm is needed for MathJax: install Node.js')
    write_source()
    build()
    broken = sorted(set(broken_links(SITE)))
    if broken:
        sys.exit('broken links:\n' + '\n'.join(broken))


if __name__ == '__main__':
    main()
