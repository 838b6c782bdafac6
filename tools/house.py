"""What the house asks of notebooks and modules, as checks that the tests and the hooks share, and as a table of measures.

python tools/house.py                       measure everything and list what is over a bound
python tools/house.py CHECK [NOTEBOOK …]    one of the checks below, on some notebooks or on all"""

import ast
import json
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
NBS, PACKAGE = ROOT / 'nbs', ROOT / 'omnisapiens_nb'
ROOMS = (
    'atlas',
    'sft',
    'rl',
    'evaluation',
    'runs',
    'studies',
    'guides',
)  # In reading order; pages at the top come after them
SIZE = 300_000  # Bytes of a notebook
LINES = {'code cell': dict(median=6, p90=16, longest=40), 'function': dict(median=10, longest=40)}
PROSE = 0.5  # Cells of prose per cell of code


def notebooks() -> list[Path]:
    "Every notebook, in reading order."

    def place(p):
        return (ROOMS.index(r) if (r := p.relative_to(NBS).parts[0]) in ROOMS else len(ROOMS), p)

    return sorted((p for p in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts), key=place)


def cells(
    path: Path,  # Notebook
    kind: str,  # `code` or `markdown`
) -> list[dict]:
    "Cells of one kind."
    return [c for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == kind]


def code_lines(
    cell: dict,  # Of code
) -> list[str]:  # Neither empty nor a directive
    "Lines that count as code."
    return [line for line in ''.join(cell['source']).splitlines() if line.strip() and not line.startswith('#|')]


def outputs(
    path: Path,  # Notebook
) -> Iterator[tuple[str, dict]]:  # Id of the cell, and its text by kind
    "Stored outputs of a notebook."
    for cell in cells(path, 'code'):
        for output in cell['outputs']:
            yield (
                cell['id'],
                {
                    k: ''.join(v)
                    for k, v in (output.get('data', {}) | dict(stream=output.get('text', []))).items()
                    if isinstance(v, (str, list))
                },
            )


def size(path: Path) -> Iterator[str]:  # Notebook; its faults
    "A notebook is small enough to read as a diff."
    if (n := path.stat().st_size) >= SIZE:
        yield f'{n:,} bytes, and {SIZE:,} are too many: look at its outputs'


def title(path: Path) -> Iterator[str]:  # Notebook; its faults
    "The first cell is a title and a promise, without formulas."
    first = ''.join(cells(path, 'markdown')[0]['source'])
    if not re.match(r'# .+\n\n> .+', first) or '$' in first:
        yield 'the first cell is not `# Title`, an empty line and `> promise` without formulas'


def shape(path: Path) -> Iterator[str]:  # Notebook; its faults
    "No cell is too long, and prose keeps up with code."
    code, prose = cells(path, 'code'), cells(path, 'markdown')
    lengths, most = {c['id']: len(code_lines(c)) for c in code}, LINES['code cell']['longest']
    for cell, n in lengths.items():
        if n > most:
            yield f'cell {cell} has {n} lines, and {most} are allowed'
    written = sum(n > 0 for n in lengths.values()) - 4  # Title, imports and the closing export stand without prose
    if len(prose) < PROSE * written:
        yield f'{len(prose)} cells of prose for {written} of code'


def imports(path: Path) -> Iterator[str]:  # Notebook; its faults
    "Imports stand in cells of their own, since the docs run them elsewhere."
    for cell in cells(path, 'code'):
        lines = [line for line in code_lines(cell) if not line.startswith((' ', ')'))]
        if not any(re.match(r'(import|from) ', line) and 'nbdev.nbdev_export' not in line for line in lines):
            continue
        if other := [
            line for line in lines if not re.match(r'(import|from) |disable_progress_bar|with warnings', line)
        ]:
            yield f'cell {cell["id"]} has imports and `{other[0]}`; give the imports a cell of their own'


def bars(path: Path) -> Iterator[str]:  # Notebook; its faults
    "No progress bar is in a stored output."
    for cell, texts in outputs(path):
        if 'application/vnd.jupyter.widget-view+json' in texts or any(
            re.search(r'\d%\|[^|\n]*\||\d(?:it/s|s/it)\b', t) for k, t in texts.items() if k in ('stream', 'text/plain')
        ):
            yield f'cell {cell} has a progress bar in its output; turn it off and run the cell again'


def folders(path: Path) -> Iterator[str]:  # Notebook; its faults
    "No stored output names a temporary folder, which has another name each time."
    for cell, texts in outputs(path):
        if any(tempfile.gettempdir() + '/' in texts.get(kind, '') for kind in ('stream', 'text/plain')):
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


CHECKS = {f.__name__: f for f in (size, title, shape, imports, bars, folders, formulas, pictures)}


def check(
    found: Callable[[Path], Iterator[str]],  # One of `CHECKS`
    paths: list[Path],  # Notebooks
):
    "Stop with what is wrong, notebook by notebook."
    if faults := [f'{p.resolve().relative_to(ROOT)}: {fault}' for p in paths for fault in found(p)]:
        sys.exit('\n'.join(faults))


def modules() -> list[Path]:
    "Exported modules."
    return sorted(p for p in PACKAGE.rglob('*.py') if p.name not in ('__init__.py', '_modidx.py'))


def functions(
    path: Path,  # Module
) -> Iterator[tuple[str, int]]:  # Name, with its class, and lines from `def` to the end
    "Functions and methods of a module."
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        for f in (n for n in inside if isinstance(n, ast.FunctionDef)):
            yield f'{node.name}.{f.name}' if f is not node else f.name, f.end_lineno - f.lineno + 1


def spread(
    numbers: list[int],  # Lines
) -> dict:  # Median, nine in ten, and the largest
    "What a list of lengths comes to."
    ordered = sorted(numbers)
    return (
        dict(median=statistics.median(ordered), p90=ordered[int(0.9 * len(ordered))], longest=ordered[-1])
        if ordered
        else {}
    )


def room_of(path: Path, top: Path) -> str:  # A file below `top`
    "The room of a notebook or a module."
    return parts[0] if len(parts := path.relative_to(top).parts) > 1 else 'top'


def measures() -> list[dict]:  # One row per room, and one for all
    "Lengths of cells and functions, and prose per code, room by room."
    pages = [
        (room_of(p, NBS), [n for c in cells(p, 'code') if (n := len(code_lines(c)))], len(cells(p, 'markdown')))
        for p in notebooks()
    ]
    lengths = [(room_of(p, PACKAGE), n) for p in modules() for _, n in functions(p)]

    def row(name, here):
        code, prose = [n for r, ns, _ in pages if here(r) for n in ns], sum(m for r, _, m in pages if here(r))
        found = dict(cell=spread(code), function=spread([n for r, n in lengths if here(r)]))
        return dict(room=name, cells=len(code), prose=round(prose / max(len(code), 1), 2)) | {
            f'{kind} {k}': v for kind, of in found.items() for k, v in of.items()
        }

    return [*(row(room, room.__eq__) for room in (*ROOMS, 'top')), row('all', lambda room: True)]


def beside(
    found: dict,  # From `spread`
    bounds: dict,  # Of `LINES`
) -> list[str]:  # Empty where all is within
    "The measures that are over their bounds."
    return [f'{key} {found[key]:g} for {bound}' for key, bound in bounds.items() if found.get(key, 0) > bound]


def over() -> Iterator[str]:  # One line each
    "Notebooks that are over a bound by themselves, though bounds on median and nine in ten are for all together; and functions."
    for path in notebooks():
        code, prose = [n for c in cells(path, 'code') if (n := len(code_lines(c)))], len(cells(path, 'markdown'))
        faults = [*size(path), *title(path), *beside(spread(code), LINES['code cell'])] + [
            f'prose {prose} for {len(code)}'
        ] * (prose < PROSE * len(code))
        if faults:
            yield f'{path.relative_to(ROOT)}: {", ".join(faults)}'
    for path in modules():
        yield from (
            f'{path.relative_to(ROOT)}: {name} has {n} lines'
            for name, n in functions(path)
            if n > LINES['function']['longest']
        )


def too_long() -> list[str]:  # Empty where all is within
    "Cells of all notebooks together, and functions of all modules together, against their bounds."
    every = {
        'function': [n for path in modules() for _, n in functions(path)],
        'code cell': [n for path in notebooks() for c in cells(path, 'code') if (n := len(code_lines(c)))],
    }
    return [f'{kind}: {fault}' for kind, ns in every.items() for fault in beside(spread(ns), LINES[kind])]


def report() -> Iterator[str]:  # Lines to print
    "The table, then what is over: first all together, then one by one."
    rows, columns = (
        measures(),
        [
            'room',
            'cells',
            'prose',
            *(f'{kind} {k}' for kind in ('cell', 'function') for k in ('median', 'p90', 'longest')),
        ],
    )
    yield from (
        ''.join(
            (f'{v:g}' if isinstance(v := row.get(c, '–'), float) else str(v)).rjust(max(len(c), 10) + 2)
            for c in columns
        )
        for row in (dict(zip(columns, columns)), *rows)
    )
    yield from (
        '',
        'all together: ' + ('; '.join(too_long()) or 'within the bounds'),
        *over(),
        *undescribed(),
        *undemonstrated(),
    )


def module_name(path: Path) -> str:  # Module
    "What a module is called inside the package."
    return '.'.join(path.relative_to(PACKAGE).with_suffix('').parts)


@cache
def exported() -> dict[str, dict[str, tuple[ast.AST, list[str]]]]:  # Module → name → definition and the module's lines
    "Functions and classes that the modules' `__all__` names."
    found = {}
    for path in modules():
        text = path.read_text(encoding='utf-8')
        body = ast.parse(text).body
        names = next(
            (
                ast.literal_eval(n.value)
                for n in body
                if isinstance(n, ast.Assign) and getattr(n.targets[0], 'id', '') == '__all__'
            ),
            [],
        )
        found[module_name(path)] = {n.name: (n, text.splitlines()) for n in body if getattr(n, 'name', '') in names}
    return found


def parameters(
    f: ast.FunctionDef,  # Function or method
) -> list[ast.arg]:  # Without `self`
    "Everything a function takes."
    a = f.args
    found = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    return [p for p in found if p.arg not in ('self', 'cls')]


@cache
def helpful() -> set[str]:
    "Types that carry the help of a command's option in themselves."
    return {
        n.targets[0].id
        for p in modules()
        for n in ast.parse(p.read_text(encoding='utf-8')).body
        if isinstance(n, ast.Assign) and 'help=' in ast.unparse(n.value)
    }


def methods(
    node: ast.AST,  # Function or class
) -> Iterator[ast.FunctionDef]:
    "What of a definition is called with parameters: itself, or its public methods that no base class of the package has described."
    if not isinstance(node, ast.ClassDef):
        yield node
        return
    bases = {getattr(b, 'id', '') for b in node.bases}
    while (
        more := {
            getattr(b, 'id', '')
            for ns in exported().values()
            for n, (c, _) in ns.items()
            if n in bases and isinstance(c, ast.ClassDef)
            for b in c.bases
        }
        - bases
    ):
        bases |= more
    inherited = {
        m.name
        for ns in exported().values()
        for n, (c, _) in ns.items()
        if n in bases
        for m in c.body
        if isinstance(m, ast.FunctionDef)
    }
    for m in node.body:
        if (
            isinstance(m, ast.FunctionDef)
            and (m.name in ('__init__', '__call__') or not m.name.startswith('_'))
            and m.name not in inherited
        ):
            yield m


def undescribed() -> Iterator[str]:  # Module, name and what is missing
    "Exported functions and classes without a docstring, and their parameters without a word."
    for module, found in exported().items():
        for name, (node, lines) in found.items():
            if not ast.get_docstring(node):
                yield f'{module}: {name} has no docstring'
            for f in methods(node):
                text = f'{ast.get_docstring(node)} {ast.get_docstring(f)}'

                def told(p):
                    return (
                        '#' in lines[p.end_lineno - 1]
                        or f'`{p.arg}`' in text
                        or (
                            p.annotation
                            and ('help=' in ast.unparse(p.annotation) or getattr(p.annotation, 'id', '') in helpful())
                        )
                    )

                if missing := [p.arg for p in parameters(f) if not told(p)]:
                    yield f'{module}: {name}{"" if f is node else "." + f.name} says nothing of {", ".join(missing)}'


def names_in(
    code: ast.AST,  # Parsed
) -> set[str]:
    "Names that code uses, commands of the command line among them, without what it only imports."
    nodes = list(ast.walk(code))
    texts = {
        word
        for n in nodes
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and len(n.value) < 200
        for word in n.value.split()
    }
    return (
        {n.id for n in nodes if isinstance(n, ast.Name)}
        | {n.attr for n in nodes if isinstance(n, ast.Attribute)}
        | texts
    )


@cache
def taught() -> set[str]:
    "Names that a lesson cell of a notebook or a test uses."

    def plain(line):
        return re.sub(r'^(\s*)[!%].*', r'\1pass', line)  # Colab's install cell calls a shell

    lessons = [
        '\n'.join(map(plain, code_lines(c)))
        for p in notebooks()
        for c in cells(p, 'code')
        if not re.match(r'#\| *export', ''.join(c['source']))
    ]
    return set().union(
        *(
            names_in(ast.parse(code))
            for code in [*lessons, *(p.read_text(encoding='utf-8') for p in (ROOT / 'tests').glob('*.py'))]
        )
    )


@cache
def used_by() -> dict[tuple[str, str], set[str]]:  # Module and name → the names its definition uses
    "What the definitions of all modules use, tables among them."

    def target(n):
        return [getattr(n, 'name', '')] if not isinstance(n, ast.Assign) else [getattr(t, 'id', '') for t in n.targets]

    return {
        (module_name(p), name): names_in(n)
        for p in modules()
        for n in ast.parse(p.read_text(encoding='utf-8')).body
        for name in target(n)
        if name and name != '__all__'
    }


def undemonstrated() -> Iterator[str]:  # Module and name
    "Exported functions and classes that no lesson or test uses, neither by name nor through a function, class or table that one uses."
    shown = {key for key in used_by() if key[1] in taught()}
    while more := {key for key in used_by() if key not in shown and any(key[1] in used_by()[s] for s in shown)}:
        shown |= more
    yield from (
        f'{module}: {name} is shown nowhere'
        for module, found in exported().items()
        for name in found
        if (module, name) not in shown
    )


if __name__ == '__main__':
    if sys.argv[1:]:
        check(CHECKS[sys.argv[1]], [Path(p) for p in sys.argv[2:]] or notebooks())
    else:
        sys.stdout.write('\n'.join(report()) + '\n')
