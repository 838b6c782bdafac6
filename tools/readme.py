"README.md from nbs/index.ipynb: the same text, links and stored outputs, as Markdown."

import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]

notebook = nbformat.read(ROOT / 'nbs' / 'index.ipynb', as_version=4)
notebook.cells = [c for c in notebook.cells if '#| hide' not in c.source]
for cell in notebook.cells:
    if cell.cell_type == 'code' and '#| echo: false' in cell.source:  # shown as its output alone
        cell.source = ''.join(o.data['text/markdown'] for o in cell.outputs)
        cell.cell_type = 'markdown'
body, _ = MarkdownExporter().from_notebook_node(notebook)
body = body.replace('](images/', '](nbs/images/')
lines = (line.rstrip() for line in body.strip().splitlines())
text = '<!-- Made from nbs/index.ipynb by `make export`; edit the notebook. -->\n\n' + '\n'.join(lines) + '\n'
Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / 'README.md').write_text(text, encoding='utf-8')
