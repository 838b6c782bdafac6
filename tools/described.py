"What the package exports, whether each name is described, and whether a lesson or a test uses it."

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from measures import ROOT, cells, code_lines, module_name, modules, notebooks


def parsed(
    path: Path,  # Python file
) -> ast.Module:
    "A file as a tree."
    return ast.parse(path.read_text(encoding='utf-8'))


def all_of(
    tree: ast.Module,  # Of a module
) -> list[str]:
    "What `__all__` names."
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__':
            return ast.literal_eval(node.value)
    return []


@cache
def exported() -> dict[str, dict[str, tuple[ast.AST, list[str]]]]:  # Module → name → definition, and the module's lines
    "Functions and classes that the modules' `__all__` names."
    found = {}
    for path in modules():
        tree = parsed(path)
        names = all_of(tree)
        lines = path.read_text(encoding='utf-8').splitlines()
        found[module_name(path)] = {n.name: (n, lines) for n in tree.body if getattr(n, 'name', '') in names}
    return found


def parameters(
    function: ast.FunctionDef,  # Function or method
) -> list[ast.arg]:  # Without `self`
    "Everything a function takes."
    a = function.args
    found = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    return [p for p in found if p.arg not in ('self', 'cls')]


@cache
def helpful() -> set[str]:
    "Types that carry the help of a command's option in themselves."
    found = set()
    for path in modules():
        for node in parsed(path).body:
            if isinstance(node, ast.Assign) and 'help=' in ast.unparse(node.value):
                found.add(node.targets[0].id)
    return found


@cache
def classes() -> dict[str, list[ast.ClassDef]]:
    "Classes of the package by name; two modules may have one of the same name."
    found = {}
    for path in modules():
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(node)
    return found


def bases_of(
    node: ast.ClassDef,  # A class of the package
) -> set[str]:
    "Names of its bases, and of theirs."
    found = set()
    waiting = [node]
    while waiting:
        for base in waiting.pop().bases:
            name = getattr(base, 'id', '')
            if name in classes() and name not in found:
                found.add(name)
                waiting.extend(classes()[name])
    return found


def methods(
    node: ast.AST,  # Function or class
) -> Iterator[ast.FunctionDef]:
    "What of a definition is called with parameters: itself, or its public methods that no base has described."
    if not isinstance(node, ast.ClassDef):
        yield node
        return
    bases = [base for name in bases_of(node) for base in classes()[name]]
    described = {f.name for base in bases for f in base.body if isinstance(f, ast.FunctionDef)}
    for f in node.body:
        if not isinstance(f, ast.FunctionDef) or f.name in described:
            continue
        if f.name in ('__init__', '__call__') or not f.name.startswith('_'):
            yield f


def is_told(
    parameter: ast.arg,  # Of a function
    lines: list[str],  # Of its module
    docstrings: str,  # Of the function and its class
) -> bool:
    "Whether a parameter has a remark, a word in a docstring, or the help of an option."
    if '#' in lines[parameter.end_lineno - 1] or f'`{parameter.arg}`' in docstrings:
        return True
    if parameter.annotation is None:
        return False
    return 'help=' in ast.unparse(parameter.annotation) or getattr(parameter.annotation, 'id', '') in helpful()


def undescribed() -> Iterator[str]:  # Module, name and what is missing
    "Exported functions and classes without a docstring, and their parameters without a word."
    for module, found in exported().items():
        for name, (node, lines) in found.items():
            if not ast.get_docstring(node):
                yield f'{module}: {name} has no docstring'
            for f in methods(node):
                docstrings = f'{ast.get_docstring(node)} {ast.get_docstring(f)}'
                missing = [p.arg for p in parameters(f) if not is_told(p, lines, docstrings)]
                if missing:
                    whole = name if f is node else f'{name}.{f.name}'
                    yield f'{module}: {whole} says nothing of {", ".join(missing)}'


LONG = 200  # Characters of a text that is no command line


def names_in(
    code: ast.AST,  # Parsed
) -> set[str]:
    "Names that code uses, commands of the command line among them, without what it only imports."
    found = set()
    for n in ast.walk(code):
        if isinstance(n, ast.Name):
            found.add(n.id)
        if isinstance(n, ast.Attribute):
            found.add(n.attr)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and len(n.value) < LONG:
            found.update(n.value.split())
    return found


def is_lesson(
    cell: dict,  # Of code
) -> bool:
    "Whether a cell goes nowhere but onto its page."
    return not re.match(r'#\| *export', ''.join(cell['source']))


def plain(
    line: str,  # Of a lesson
) -> str:
    "A line of a lesson as Python; Colab's install cell calls a shell."
    return re.sub(r'^(\s*)[!%].*', r'\1pass', line)


@cache
def taught() -> set[str]:
    "Names that a lesson cell of a notebook or a test uses."
    found = set()
    for path in notebooks():
        for cell in filter(is_lesson, cells(path, 'code')):
            lesson = '\n'.join(map(plain, code_lines(cell)))
            found |= names_in(ast.parse(lesson))
    for path in (ROOT / 'tests').rglob('*.py'):
        found |= names_in(parsed(path))
    return found


def defined(
    node: ast.stmt,  # At the top of a module
) -> list[str]:
    "Names that a statement defines."
    if isinstance(node, ast.Assign):
        return [getattr(target, 'id', '') for target in node.targets]
    return [getattr(node, 'name', '')]


@cache
def used_by() -> dict[tuple[str, str], set[str]]:  # Module and name → the names its definition uses
    "What the definitions of all modules use, tables among them."
    found = {}
    for path in modules():
        for node in parsed(path).body:
            for name in defined(node):
                if name and name != '__all__':
                    found[module_name(path), name] = names_in(node)
    return found


def undemonstrated() -> Iterator[str]:  # Module and name
    "Exported functions and classes that no lesson or test uses, by name or through a definition that one uses."
    uses = used_by()
    shown = {key for key in uses if key[1] in taught()}
    waiting = list(shown)
    while waiting:
        names = uses[waiting.pop()]
        reached = {key for key in uses if key[1] in names} - shown
        shown |= reached
        waiting.extend(reached)
    for module, found in exported().items():
        yield from (f'{module}: {name} is shown nowhere' for name in found if (module, name) not in shown)
