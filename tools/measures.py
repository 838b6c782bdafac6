"Measures of the house: lines of cells and functions, nodes per line, width; and the bounds they keep to."

import ast
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
NBS = ROOT / 'nbs'
PACKAGE = ROOT / 'omnisapiens_nb'
# In reading order; pages at the top come after them
ROOMS = ('atlas', 'sft', 'rl', 'evaluation', 'runs', 'studies', 'guides')
BOUNDS = {
    'code cell': dict(median=8, p90=22, longest=50),  # Lines, all notebooks together
    'function': dict(median=10, longest=40),  # Lines from `def` to the end, all modules together
    'nodes': dict(median=10, p90=15),  # AST nodes per line of a function's body, each module by itself
}
WIDTH = 120  # Columns of a line
PROSE = 0.5  # Cells of prose per cell of code
FEW = 5  # A module with fewer functions has no ninth of ten


def notebooks() -> list[Path]:
    "Every notebook, in reading order."

    def place(path):
        room = path.relative_to(NBS).parts[0]
        return (ROOMS.index(room) if room in ROOMS else len(ROOMS), path)

    return sorted((p for p in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts), key=place)


def modules() -> list[Path]:
    "Exported modules."
    return sorted(p for p in PACKAGE.rglob('*.py') if p.name not in ('__init__.py', '_modidx.py'))


def module_name(
    path: Path,  # Module
) -> str:
    "What a module is called inside the package."
    return '.'.join(path.relative_to(PACKAGE).with_suffix('').parts)


def room_of(
    path: Path,  # Notebook or module
    top: Path,  # `NBS` or `PACKAGE`
) -> str:
    "The room of a notebook or a module, `top` where it is in none."
    parts = path.relative_to(top).parts
    return parts[0] if len(parts) > 1 else 'top'


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


def imports_alone(
    lines: list[str],  # From `code_lines`
) -> bool:
    "Whether a cell holds imports and nothing else; it is no reading, however long."
    return all(line.startswith(('import ', 'from ', '    ', ')')) for line in lines)


def cell_lengths(
    path: Path,  # Notebook
) -> dict[str, int]:  # Id of a cell to its lines
    "Lines of the cells with code, those of imports left out."
    found = {c['id']: code_lines(c) for c in cells(path, 'code')}
    return {name: len(lines) for name, lines in found.items() if lines and not imports_alone(lines)}


def functions(
    path: Path,  # Module
) -> Iterator[tuple[str, ast.FunctionDef]]:  # Name, with its class, and definition
    "Functions and methods of a module."
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef):
                    yield f'{node.name}.{method.name}', method


def length(
    function: ast.FunctionDef,  # Its definition
) -> int:
    "Lines of a function from `def` to its end."
    return function.end_lineno - function.lineno + 1


def body_of(
    function: ast.FunctionDef,  # Its definition
) -> list[ast.stmt]:
    "Statements of a function behind its docstring."
    return function.body[1:] if ast.get_docstring(function) else function.body


def nodes_per_line(
    path: Path,  # Module
) -> dict[str, float]:  # Function, with its line, to a ratio
    "How much is said on a line: AST nodes over lines of code, for the body of each function, inner ones included."
    text = path.read_text(encoding='utf-8')
    lines = text.splitlines()
    found = {}
    for function in (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)):
        body = body_of(function)
        if not body:
            continue
        inside = [n for statement in body for n in ast.walk(statement)]
        nodes = sum(not isinstance(n, ast.expr_context) for n in inside)
        shown = [line.strip() for line in lines[body[0].lineno - 1 : body[-1].end_lineno]]
        written = sum(bool(line) and not line.startswith('#') for line in shown)
        found[f'{function.name}:{function.lineno}'] = nodes / written
    return found


def widest(
    path: Path,  # Module or notebook
) -> int:  # Columns
    "Width of the widest line of code."
    if path.suffix == '.ipynb':
        lines = [line for c in cells(path, 'code') if not c['id'].startswith('colab_') for line in code_lines(c)]
        lines = [line for line in lines if not line.startswith('#|')]
    else:
        lines = path.read_text(encoding='utf-8').splitlines()
    return max(map(len, lines), default=0)


def spread(
    numbers: list[float],  # Of any measure
) -> dict[str, float]:  # Median, nine in ten, and the largest; empty where there are none
    "What a list of measures comes to."
    if not numbers:
        return {}
    ordered = sorted(numbers)
    return dict(median=statistics.median(ordered), p90=ordered[int(0.9 * len(ordered))], longest=ordered[-1])


def beside(
    found: dict[str, float],  # From `spread`
    bounds: dict[str, float],  # Of `BOUNDS`
) -> list[str]:  # Empty where all is within
    "The measures that are over their bounds."
    return [f'{key} {found[key]:.3g} for {bound}' for key, bound in bounds.items() if found.get(key, 0) > bound]


def room_table() -> list[dict]:  # One row per room, and one for all
    "Lengths of cells and functions, and prose per code, room by room."
    pages = [(room_of(p, NBS), list(cell_lengths(p).values()), len(cells(p, 'markdown'))) for p in notebooks()]
    lengths = [(room_of(p, PACKAGE), length(f)) for p in modules() for _, f in functions(p)]

    def row(name, rooms):
        code = [n for room, ns, _ in pages if room in rooms for n in ns]
        prose = sum(count for room, _, count in pages if room in rooms)
        found = dict(room=name, cells=len(code), prose=round(prose / max(len(code), 1), 2))
        found |= {f'cell {key}': value for key, value in spread(code).items()}
        inside = spread([n for room, n in lengths if room in rooms])
        return found | {f'function {key}': value for key, value in inside.items()}

    every = (*ROOMS, 'top')
    return [*(row(room, (room,)) for room in every), row('all', every)]


def module_table() -> list[dict]:  # One row per module
    "Lines, functions, nodes per line and width of each module."
    rows = []
    for path in modules():
        ratios = list(nodes_per_line(path).values())
        measured = spread(ratios)
        rows.append(
            dict(
                module=module_name(path),
                lines=len(path.read_text(encoding='utf-8').splitlines()),
                functions=len(ratios),
                nodes=round(measured.get('median', 0), 1),
                p90=round(measured.get('p90', 0), 1),
                width=widest(path),
                longest=max((length(f) for _, f in functions(path)), default=0),
            )
        )
    return rows


def too_long() -> list[str]:  # Empty where all is within
    "Cells of all notebooks together, and functions of all modules together, against their bounds."
    every = {
        'function': [length(f) for path in modules() for _, f in functions(path)],
        'code cell': [n for path in notebooks() for n in cell_lengths(path).values()],
    }
    return [f'{kind}: {fault}' for kind, ns in every.items() for fault in beside(spread(ns), BOUNDS[kind])]


def too_dense() -> Iterator[str]:  # One line per module
    "Modules that say too much on a line, or whose lines are too wide."
    for path in modules():
        ratios = nodes_per_line(path)
        measured = spread(list(ratios.values()))
        if len(ratios) < FEW:
            measured.pop('p90', None)
        faults = [f'nodes per line, {fault}' for fault in beside(measured, BOUNDS['nodes'])]
        if faults:
            worst = sorted(ratios, key=ratios.get)[-3:]
            faults.append('most in ' + ', '.join(reversed(worst)))
        if widest(path) > WIDTH:
            faults.append(f'a line of {widest(path)} columns')
        if faults:
            yield f'{module_name(path)}: {"; ".join(faults)}'
