"The site from the notebooks: nbdev's processed notebooks, Sphinx with myst-nb and furo, formulas by a local MathJax."

import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from cells import anchors, code_cell, directives, facts, is_hidden, lead, local_links, notebook_links, page_of
from links import broken_links
from nbdev.config import get_config
from nbdev.serve import proc_nbs
from reference import Reference
from terms import Terms

CONFIG = get_config()
ROOT = Path(CONFIG.config_path)
SOURCE, SITE = ROOT / '_site_src', ROOT / '_site'
NOTEBOOKS = f'{CONFIG.git_url}/blob/{CONFIG.branch}/{CONFIG.nbs_path.name}'
BASE = CONFIG.doc_host.rstrip('/') + CONFIG.doc_baseurl.rstrip('/') + '/'
START = ['pieces', 'glossary', 'estimators', 'cli', 'colab']  # At the top of nbs/, behind the front page
ROOMS = dict(
    atlas='The Atlas',
    sft='Supervised fine-tuning',
    rl='Reinforcement learning',
    evaluation='Evaluation',
    runs='Runs',
    studies='Studies',
    guides='Guides',
)
SPHINX = f"""
project = {CONFIG.title!r}
author = {CONFIG.author!r}
copyright = {CONFIG.copyright!r}
version = release = {CONFIG.version!r}
extensions = ['myst_nb', 'sphinx_copybutton', 'sphinx.ext.mathjax']
html_theme, html_title, html_static_path, html_css_files = 'furo', project, ['_static'], ['site.css']
pygments_style, pygments_dark_style = 'a11y-high-contrast-light', 'a11y-high-contrast-dark'
nb_execution_mode, nb_render_markdown_format = 'off', 'gfm'
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'attrs_inline']
myst_heading_anchors, myst_update_mathjax, mathjax_path = 4, False, 'mathjax/tex-svg.js'
"""


class Book:
    "All notebooks as pages, with what they share: the glossary's words, the reference, and what the runs took."

    def __init__(self, processed):
        self.nbs, self.processed = ROOT / CONFIG.nbs_path.name, processed
        self.paths = sorted(p for p in self.nbs.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
        self.terms = Terms(
            '\n\n'.join(
                ''.join(c['source'])
                for c in json.loads((self.nbs / 'glossary.ipynb').read_text())['cells']
                if c['cell_type'] == 'markdown'
            )
        )
        self.reference = Reference(ROOT / CONFIG.lib_path.name, f'{CONFIG.git_url}/blob/{CONFIG.branch}', page_of)
        self.log = json.loads((self.nbs / 'results' / 'notebooks.json').read_text())['pinned']

    def prose(self, cell, linked, page, seen, up):
        source = ''.join(linked.get(cell['id'], cell)['source'])
        if page != 'glossary':
            source = self.terms.link(source, seen, up)
        return dict(cell, source=notebook_links(local_links(source, BASE, up), NOTEBOOKS, up))

    def cells(self, path, page):
        "The cells of a page: title, facts, prose with its links, exported code with anchors, lessons with their outputs."
        name, up, seen = path.relative_to(self.nbs).with_suffix('').as_posix(), '../' * page.count('/'), set()
        linked = {
            c['id']: c
            for c in json.loads((self.processed / path.relative_to(self.nbs)).read_text())['cells']
            if c['cell_type'] == 'markdown'
        }
        title, *rest = json.loads(path.read_text())['cells']
        code = [c for c in rest if c['cell_type'] == 'code']
        module = next((m for c in code if (m := directives(c).get('default_exp'))), '')
        yield dict(
            title, source=local_links(lead(''.join(linked.get(title['id'], title)['source']), '/' in page), BASE, up)
        )
        yield facts(name, page, code, self.log, up, module)
        for cell in rest:
            if cell['id'] == 'colab_badge':
                continue
            if cell['cell_type'] == 'markdown':
                yield self.prose(cell, linked, page, seen, up)
            elif not is_hidden(cell):
                if any(k.startswith('export') for k in directives(cell)):
                    yield from anchors(cell, page, self.reference.places, up)
                shown = code_cell(cell)
                for data in (o['data'] for o in shown['outputs'] if 'text/markdown' in o.get('data', {})):
                    data['text/markdown'] = notebook_links(''.join(data['text/markdown']), NOTEBOOKS, up)
                yield shown

    def write(self):
        "Write every page; returns their names without suffix."
        kernel = dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'))
        for path in self.paths:
            name = page_of(path.relative_to(self.nbs).with_suffix('').as_posix())
            page = SOURCE / f'{name}.ipynb'
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(
                json.dumps(dict(cells=list(self.cells(path, name)), metadata=kernel, nbformat=4, nbformat_minor=5))
            )
            yield name


def contents(pages, reference):
    "A table of contents in reading order, one caption per room."

    def tree(caption, names):
        return f'```{{toctree}}\n:hidden:\n:caption: {caption}\n\n' + '\n'.join(names) + '\n```'

    rooms = [tree(caption, [p for p in pages if p.startswith(room + '/')]) for room, caption in ROOMS.items()]
    return '\n\n'.join([tree('Start here', [f'{CONFIG.title} <self>', *START]), *rooms, tree('Reference', reference)])


def mathjax(folder):
    "MathJax from npm, one file, so that formulas need no network."
    folder.mkdir(parents=True)
    packed = subprocess.run(
        ['npm', 'pack', '--silent', 'mathjax@3.2.2'], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()
    with tarfile.open(folder / packed) as archive:
        (folder / 'tex-svg.js').write_bytes(archive.extractfile('package/es5/tex-svg.js').read())
    (folder / packed).unlink()


def mend(text):
    "A built page with what screen readers and keyboards need: scrolling boxes that take the focus, captions that are no headings, folds that are called what they say."
    text = text.replace('<p class="caption" role="heading">', '<p class="caption">').replace(
        '<summary aria-label="Toggle hidden content">', '<summary>'
    )
    return re.sub(
        r'<pre>|<div class="(?:table-wrapper|output text_html)[^>]*>', lambda m: m[0][:-1] + ' tabindex="0">', text
    )


def main():
    if not shutil.which('npm'):
        sys.exit('npm is needed for MathJax: install Node.js')
    processed = Path(proc_nbs(force=True))
    for folder in (SOURCE, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    book = Book(processed)
    pages = list(book.write())
    reference = list(book.reference.write(SOURCE, ROOMS))
    index = SOURCE / 'index.ipynb'
    notebook = json.loads(index.read_text())
    notebook['cells'].append(dict(cell_type='markdown', id='contents', metadata={}, source=contents(pages, reference)))
    index.write_text(json.dumps(notebook))
    mathjax(SOURCE / '_static' / 'mathjax')
    shutil.copytree(book.nbs / 'images', SOURCE / 'images')
    shutil.copy(Path(__file__).with_name('site.css'), SOURCE / '_static')
    (SOURCE / 'conf.py').write_text(SPHINX)
    subprocess.run(
        [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-b', 'html', '-j', '2', SOURCE, SITE], check=True
    )
    for page in SITE.rglob('*.html'):
        page.write_text(mend(page.read_text(encoding='utf-8')), encoding='utf-8')
    if broken := sorted(set(broken_links(SITE))):
        sys.exit('broken links:\n' + '\n'.join(broken))


if __name__ == '__main__':
    main()
