"""What the house asks of notebooks and modules: checks that the tests and the hooks share, and a table of measures.

python tools/house.py                       measure everything and list what is over a bound
python tools/house.py CHECK [NOTEBOOK …]    one of the checks below, on some notebooks or on all"""

import ast
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import measures
from described import plain, undemonstrated, undescribed
from measures import BOUNDS, PROSE, ROOT, WIDTH, cell_lengths, cells, code_lines, modules, notebooks

SIZE = 300_000  # Bytes of a notebook
BARE = 4  # Cells that stand without prose: title, imports and the closing export


def outputs(
    path: Path,  # Notebook
) -> Iterator[tuple[str, dict[str, str]]]:  # Id of the cell, and its text by kind
    "Stored outputs of a notebook."
    for cell in cells(path, 'code'):
        for output in cell['outputs']:
            texts = output.get('data', {}) | dict(stream=output.get('text', []))
            yield cell['id'], {kind: ''.join(t) for kind, t in texts.items() if isinstance(t, (str, list))}


def printed(
    texts: dict[str, str],  # From `outputs`
) -> list[str]:
    "What of an output is plain text."
    return [texts[kind] for kind in ('stream', 'text/plain') if kind in texts]


def size(path: Path) -> Iterator[str]:  # Notebook; its faults
    "A notebook is small enough to read as a diff."
    count = path.stat().st_size
    if count >= SIZE:
        yield f'{count:,} bytes, and {SIZE:,} are too many: look at its outputs'


def title(path: Path) -> Iterator[str]:  # Notebook; its faults
    "The first cell is a title and a promise, without formulas."
    first = ''.join(cells(path, 'markdown')[0]['source'])
    if not re.match(r'# .+\n\n> .+', first) or '$' in first:
        yield 'the first cell is not `# Title`, an empty line and `> promise` without formulas'


def shape(path: Path) -> Iterator[str]:  # Notebook; its faults
    "No cell is too long, and prose keeps up with code."
    most = BOUNDS['code cell']['longest']
    for cell, lines in cell_lengths(path).items():
        if lines > most:
            yield f'cell {cell} has {lines} lines, and {most} are allowed'
    prose = len(cells(path, 'markdown'))
    code = sum(bool(code_lines(c)) for c in cells(path, 'code')) - BARE
    if prose < PROSE * code:
        yield f'{prose} cells of prose for {code} of code'


def width(path: Path) -> Iterator[str]:  # Notebook; its faults
    "No line of code is too wide to read beside another."
    if measures.widest(path) > WIDTH:
        yield f'a line of {measures.widest(path)} columns, and {WIDTH} are allowed'


def imports(path: Path) -> Iterator[str]:  # Notebook; its faults
    "Imports stand in cells of their own, since the docs run them elsewhere."
    for cell in cells(path, 'code'):
        tree = ast.parse('\n'.join(map(plain, code_lines(cell))))
        found = [ast.unparse(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        if found in ([], ['import nbdev']):
            continue
        other = [ast.unparse(node) for node in tree.body if not isinstance(node, (ast.Import, ast.ImportFrom))]
        other = [line for line in other if not line.startswith(('disable_progress_bar', 'with warnings', 'require('))]
        if other:
            yield f'cell {cell["id"]} has imports and `{other[0]}`; give the imports a cell of their own'


def bars(path: Path) -> Iterator[str]:  # Notebook; its faults
    "No progress bar is in a stored output."
    bar = re.compile(r'\d%\|[^|\n]*\||\d(?:it/s|s/it)\b')
    for cell, texts in outputs(path):
        if 'application/vnd.jupyter.widget-view+json' in texts or any(map(bar.search, printed(texts))):
            yield f'cell {cell} has a progress bar in its output; turn it off and run the cell again'


def folders(path: Path) -> Iterator[str]:  # Notebook; its faults
    "No stored output names a temporary folder, which has another name each time."
    temporary = tempfile.gettempdir() + '/'
    for cell, texts in outputs(path):
        if any(temporary in text for text in printed(texts)):
            yield f'cell {cell} names a temporary folder in its output'


def formulas(path: Path) -> Iterator[str]:  # Notebook; its faults
    "A displayed formula is a paragraph of its own."
    for cell in cells(path, 'markdown'):
        for block in re.split(r'\n\s*\n', ''.join(cell['source'])):
            if '$$' in block and not re.fullmatch(r'\$\$.*\$\$', block.strip(), re.S):
                yield f'cell {cell["id"]}: {block[:60]!r} is no paragraph of its own'


def pictures(path: Path) -> Iterator[str]:  # Notebook; its faults
    "Every picture has a text for those who do not see it, in the directive `fig-alt` of its cell."
    for cell in cells(path, 'code'):
        drawn = any(kind.startswith('image/') for o in cell['outputs'] for kind in o.get('data', {}))
        if drawn and not re.search(r'^#\| fig-alt: \S.{29}', ''.join(cell['source']), re.M):
            yield f'cell {cell["id"]} has a picture and no `#| fig-alt: what is seen`'


def comparisons(path: Path) -> Iterator[str]:  # Notebook; its faults
    "Whole files that `test_eq` compares, which looks at one byte after the other, where `==` needs no time."
    for cell in cells(path, 'code'):
        if re.search(r'test_eq\(.*read_bytes\(', ''.join(cell['source'])):
            yield f'cell {cell["id"]} compares files by `test_eq`; write `assert … == …`'


CHECKS = {f.__name__: f for f in (size, title, shape, width, imports, bars, folders, formulas, pictures, comparisons)}


def check(
    found: Callable[[Path], Iterator[str]],  # One of `CHECKS`
    paths: list[Path],  # Notebooks
):
    "Stop with what is wrong, notebook by notebook."
    faults = [f'{path.resolve().relative_to(ROOT)}: {fault}' for path in paths for fault in found(path)]
    if faults:
        sys.exit('\n'.join(faults))


def over() -> Iterator[str]:  # One line each
    "Notebooks over a bound by themselves, though median and nine in ten are bounds of all together; and functions."
    for path in notebooks():
        lengths = list(cell_lengths(path).values())
        prose = len(cells(path, 'markdown'))
        faults = [
            *size(path),
            *title(path),
            *width(path),
            *measures.beside(measures.spread(lengths), BOUNDS['code cell']),
        ]
        if prose < PROSE * len(lengths):
            faults.append(f'prose {prose} for {len(lengths)}')
        if faults:
            yield f'{path.relative_to(ROOT)}: {", ".join(faults)}'
    most = BOUNDS['function']['longest']
    for path in modules():
        for name, function in measures.functions(path):
            if measures.length(function) > most:
                yield f'{measures.module_name(path)}: {name} has {measures.length(function)} lines'


def aligned(
    rows: list[dict],  # With the same keys, but for missing ones
) -> Iterator[str]:  # Lines of a table
    "Rows below their column names."
    columns = list(max(rows, key=len))
    shown = [[format(row.get(c, '–'), '') for c in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *shown)]
    for line in (columns, *shown):
        first, *rest = (text.ljust(w) if k == 0 else text.rjust(w) for k, (text, w) in enumerate(zip(line, widths)))
        yield '  '.join([first, *rest])


def report() -> Iterator[str]:  # Lines to print
    "Tables of rooms and modules, then what is over: first all together, then one by one."
    yield from aligned(measures.room_table())
    yield ''
    yield from aligned(measures.module_table())
    yield ''
    yield 'all together: ' + ('; '.join(measures.too_long()) or 'within the bounds')
    yield from (*measures.dense(), *measures.too_wide(), *over(), *undescribed(), *undemonstrated())


if __name__ == '__main__':
    if sys.argv[1:]:
        check(CHECKS[sys.argv[1]], [Path(p) for p in sys.argv[2:]] or notebooks())
    else:
        sys.stdout.write('\n'.join(report()) + '\n')
