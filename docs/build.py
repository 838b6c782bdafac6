"The site from the notebooks: nbdev's processed notebooks, Sphinx with myst-nb and furo, formulas by a local MathJax."
import html, json, re, shutil, subprocess, sys, tarfile
from pathlib import Path
from nbdev.config import get_config
from nbdev.serve import proc_nbs
from links import broken_links

CONFIG = get_config()
ROOT = Path(CONFIG.config_path)
SOURCE, SITE = ROOT/'_site_src', ROOT/'_site'
BASE = CONFIG.doc_host.rstrip('/') + CONFIG.doc_baseurl.rstrip('/') + '/'
START = ['pieces', 'glossary', 'estimators']   # At the top of nbs/, behind the front page
ROOMS = dict(atlas='The Atlas', sft='Supervised fine-tuning', rl='Reinforcement learning', evaluation='Evaluation', guides='The whole path')
SPHINX = f'''
project = {CONFIG.title!r}
author = {CONFIG.author!r}
version = release = {CONFIG.version!r}
extensions = ['myst_nb', 'sphinx_copybutton', 'sphinx.ext.mathjax']
html_theme, html_title, html_static_path, html_css_files = 'furo', project, ['_static'], ['site.css']
pygments_style, pygments_dark_style = 'a11y-high-contrast-light', 'a11y-high-contrast-dark'
nb_execution_mode, nb_render_markdown_format = 'off', 'gfm'
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'attrs_inline']
myst_heading_anchors, myst_update_mathjax, mathjax_path = 4, False, 'mathjax/tex-svg.js'
'''

def local_links(text, depth):
    "Links that nbdev made absolute, as HTML relative to a page `depth` folders down."
    text = re.sub(r'\{target="_blank"[^}]*\}', '', text)
    def link(m):
        target = re.sub(r'(#\w+)\..*', r'\1', m[2])   # a method has no anchor of its own, its class has
        return f'<a href="{"../"*depth}{target}"><code>{html.escape(m[1])}</code></a>'
    return re.sub(r'\[`([^`\]]+)`\]\(' + re.escape(BASE) + r'([^)\s]+)\)', link, text)

def directives(cell): return ' '.join(line for line in ''.join(cell['source']).splitlines() if line.startswith('#|'))
def body(cell): return '\n'.join(line for line in ''.join(cell['source']).splitlines() if not line.startswith('#|')).strip('\n')

def anchors(cell):
    "A cell of anchors for what a code cell defines, under the names that nbdev links to."
    names = re.findall(r'^(?:def|class) (\w+)|^([A-Z]\w+) *=', body(cell), re.M)
    tags = ''.join(f'<a id="{(a or b).lower()}"></a>' for a, b in names if not (a or b).startswith('_'))
    return [dict(cell_type='markdown', id='a' + cell['id'], metadata={}, source=tags)] if tags else []

def page_cells(cell, processed, depth):
    "The cells a notebook's cell becomes: text with its links, exported code with anchors, lessons with their outputs."
    if cell['cell_type'] == 'markdown': return [dict(cell, source=local_links(''.join(processed.get(cell['id'], cell)['source']), depth))]
    kind = directives(cell)
    if 'hide' in kind or 'default_exp' in kind or not body(cell): return []
    tags = ['remove-input'] if 'echo: false' in kind else []
    code = dict(cell_type='code', id=cell['id'], metadata=dict(tags=tags), source=body(cell), outputs=cell['outputs'], execution_count=None)
    return [*(anchors(cell) if 'export' in kind else []), code]

def convert(path, processed):
    "Write one notebook as a page; returns its name without suffix."
    relative = path.relative_to(ROOT/CONFIG.nbs_path.name)
    linked = {c['id']: c for c in json.loads((processed/relative).read_text())['cells'] if c['cell_type'] == 'markdown'}
    cells = [c for cell in json.loads(path.read_text())['cells'] for c in page_cells(cell, linked, len(relative.parts) - 1)]
    page = SOURCE/relative.with_name(re.sub(r'^\d+_', '', relative.name))
    page.parent.mkdir(parents=True, exist_ok=True)
    kernel = dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'))
    page.write_text(json.dumps(dict(cells=cells, metadata=kernel, nbformat=4, nbformat_minor=5)))
    return page.relative_to(SOURCE).with_suffix('').as_posix()

def contents(pages):
    "A table of contents in reading order, one caption per room."
    tree = lambda caption, names: f'```{{toctree}}\n:hidden:\n:caption: {caption}\n\n' + '\n'.join(names) + '\n```'
    rooms = [tree(caption, [p for p in pages if p.startswith(room + '/')]) for room, caption in ROOMS.items()]
    return '\n\n'.join([tree('Start here', [f'{CONFIG.title} <self>', *START]), *rooms])

def mathjax(folder):
    "MathJax from npm, one file, so that formulas need no network."
    folder.mkdir(parents=True)
    packed = subprocess.run(['npm', 'pack', '--silent', 'mathjax@3.2.2'], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    with tarfile.open(folder/packed) as archive: (folder/'tex-svg.js').write_bytes(archive.extractfile('package/es5/tex-svg.js').read())
    (folder/packed).unlink()

def mend(text):
    "A built page with what screen readers and keyboards need: scrolling boxes that take the focus, and captions that are no headings."
    text = text.replace('<p class="caption" role="heading">', '<p class="caption">')
    return re.sub(r'<pre>|<div class="(?:table-wrapper|output text_html)[^>]*>', lambda m: m[0][:-1] + ' tabindex="0">', text)

def main():
    if not shutil.which('npm'): sys.exit('npm is needed for MathJax: install Node.js')
    processed = Path(proc_nbs(force=True))
    for folder in (SOURCE, SITE): shutil.rmtree(folder, ignore_errors=True)
    notebooks = sorted(p for p in (ROOT/CONFIG.nbs_path.name).rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    pages = [convert(path, processed) for path in notebooks]
    index = SOURCE/'index.ipynb'
    notebook = json.loads(index.read_text())
    notebook['cells'].append(dict(cell_type='markdown', id='contents', metadata={}, source=contents(pages)))
    index.write_text(json.dumps(notebook))
    mathjax(SOURCE/'_static'/'mathjax')
    shutil.copy(Path(__file__).with_name('site.css'), SOURCE/'_static')
    (SOURCE/'conf.py').write_text(SPHINX)
    subprocess.run([sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-b', 'html', '-j', '2', SOURCE, SITE], check=True)
    for page in SITE.rglob('*.html'): page.write_text(mend(page.read_text(encoding='utf-8')), encoding='utf-8')
    if broken := sorted(set(broken_links(SITE))): sys.exit('broken links:\n' + '\n'.join(broken))

if __name__ == '__main__': main()
