"""README.md from nbs/index.ipynb: the same text, links and stored outputs, as Markdown.

python tools/readme.py [FILE]     FILE is written in place of README.md"""

import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
HEAD = '<!-- Made from nbs/index.ipynb by `make export`; edit the notebook. -->\n\n'


def shown(
    cell: nbformat.NotebookNode,  # Changed in place
) -> nbformat.NotebookNode:
    "A cell as the README has it: one that hides its code is its output alone."
    if cell.cell_type == 'code' and '#| echo: false' in cell.source:
        cell.source = ''.join(output.data['text/markdown'] for output in cell.outputs)
        cell.cell_type = 'markdown'
    return cell


def text() -> str:
    "The README."
    notebook = nbformat.read(ROOT / 'nbs' / 'index.ipynb', as_version=4)
    notebook.cells = [shown(cell) for cell in notebook.cells if '#| hide' not in cell.source]
    body, _ = MarkdownExporter().from_notebook_node(notebook)
    body = body.replace('](images/', '](nbs/images/').strip()
    lines = [line.rstrip() for line in body.splitlines()]
    return HEAD + '\n'.join(lines) + '\n'


if __name__ == '__main__':
    file = Path(sys.argv[1]) if sys.argv[1:] else ROOT / 'README.md'
    file.write_text(text(), encoding='utf-8')
