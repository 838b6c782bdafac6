"The reference: one page per module, from what the exported package says of itself; nothing is imported."

import ast
import html
import io
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from measures import is_module, module_name

TOP = ('commands', 'Commands')  # Index of the modules that are in no room, and its title
ONE_LINE = 80  # Columns of a call that is not broken into lines
LONGEST = 300  # Characters of a value that is shown whole
COLUMNS = ('name', 'type', 'default', 'what it is')


class Argument(NamedTuple):
    "What a function or a class takes."

    name: str  # With its stars
    node: ast.AST  # Where it stands
    annotation: ast.expr | None
    default: ast.expr | None


@dataclass(frozen=True)
class Symbol:
    "A public name of a module."

    name: str  # Behind its class, where it is a method
    node: ast.AST  # Its definition
    page: str  # Of the notebook that explains it

    @property
    def is_variable(self):
        return isinstance(self.node, (ast.Assign, ast.AnnAssign))

    @property
    def head(self):
        "The name itself, or that of its class."
        return self.name.split('.')[0]


def source_of(
    node: ast.AST | None,  # Of any kind
) -> str:  # Empty where there is none
    "A node as Python."
    return ast.unparse(node) if node else ''


def is_public(
    name: str,  # Of a function, a class or a variable
) -> bool:
    "Whether a name is for users."
    return not name.startswith('_') or name == '__call__'


def comments(
    text: str,  # Of a module
) -> dict[int, str]:  # Line to text
    "Comments of a module by their lines."
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            found[token.start[0]] = token.string.lstrip('# ').strip()
    return found


def targets(
    node: ast.Assign | ast.AnnAssign,  # At the top of a module
) -> list[str]:
    "Names that an assignment defines."
    left = node.targets[0] if isinstance(node, ast.Assign) else node.target
    several = getattr(left, 'elts', [left])
    return [name.id for name in several if isinstance(name, ast.Name)]


def methods(
    node: ast.AST,  # At the top of a module
) -> list[ast.FunctionDef]:  # None of what is no class
    "Public methods of a class."
    if not isinstance(node, ast.ClassDef):
        return []
    return [f for f in node.body if isinstance(f, ast.FunctionDef) and is_public(f.name)]


def definitions(
    tree: ast.Module,  # A module
) -> Iterator[tuple[str, ast.AST]]:  # Name, behind its class, and node
    "Public names of a module in its order."
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and is_public(node.name):
            yield node.name, node
            for method in methods(node):
                yield f'{node.name}.{method.name}', method
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            yield from ((name, node) for name in targets(node) if is_public(name))


def arguments(
    node: ast.FunctionDef,  # Function or method
) -> list[Argument]:
    "What a function takes, without its own object."
    a = node.args
    plain = a.posonlyargs + a.args
    defaults = [None] * (len(plain) - len(a.defaults)) + a.defaults
    found = [Argument(p.arg, p, p.annotation, default) for p, default in zip(plain, defaults)]
    if a.vararg:
        found.append(Argument('*' + a.vararg.arg, a.vararg, a.vararg.annotation, None))
    found += [Argument(p.arg, p, p.annotation, default) for p, default in zip(a.kwonlyargs, a.kw_defaults)]
    if a.kwarg:
        found.append(Argument('**' + a.kwarg.arg, a.kwarg, a.kwarg.annotation, None))
    is_method = bool(found) and found[0].name in ('self', 'cls')
    return found[1:] if is_method else found


def fields(
    node: ast.ClassDef,  # A class
) -> list[Argument]:
    "What a class is made with: the arguments of its `__init__`, or its annotated fields."
    for inside in node.body:
        if isinstance(inside, ast.FunctionDef) and inside.name == '__init__':
            return arguments(inside)
    annotated = [f for f in node.body if isinstance(f, ast.AnnAssign) and is_public(f.target.id)]
    return [Argument(f.target.id, f, f.annotation, f.value) for f in annotated]


def declared(
    argument: Argument,  # Of a function or a class
) -> str:
    "An argument as a signature has it."
    text = argument.name
    if argument.annotation:
        text += f':{source_of(argument.annotation)}'
    if argument.default:
        text += f'={source_of(argument.default)}'
    return text


def first_by_name_only(
    node: ast.AST,  # Function or class
) -> str:  # Empty where a signature needs no star
    "The argument that stands behind a bare star."
    if not isinstance(node, ast.FunctionDef) or node.args.vararg or not node.args.kwonlyargs:
        return ''
    return node.args.kwonlyargs[0].arg


def signature(
    name: str,  # Of the function or class
    node: ast.AST,  # Its definition
    given: list[Argument],  # What it takes
) -> str:
    "How a function or a class is called, with types and defaults, one argument a line where it is long."
    behind_star = first_by_name_only(node)
    said = []
    for argument in given:
        if argument.name == behind_star:
            said.append('*')
        said.append(declared(argument))
    returned = getattr(node, 'returns', None)
    end = f'->{source_of(returned)}' if returned else ''
    short = f'{name}({", ".join(said)}){end}'
    if len(short) <= ONE_LINE:
        return short
    lines = ''.join(f'    {text},\n' for text in said)
    return f'{name}(\n{lines}){end}'


def as_code(
    text: str,  # Python
) -> str:  # HTML; empty where there is none
    "Python in a line of text."
    return f'<code>{html.escape(text)}</code>' if text else ''


def remark(
    text: str,  # A comment
) -> str:
    "A comment as HTML."
    return re.sub(r'`([^`]+)`', r'<code>\1</code>', html.escape(text))


def table_row(
    head: str,  # HTML
    *fields: str,  # HTML
) -> str:
    "A row of the table of parameters."
    rest = ''.join(f'<td>{field}</td>' for field in fields)
    return f'<tr><th scope="row">{head}</th>{rest}</tr>'


def table(
    given: list[Argument],  # What is taken
    notes: Mapping[int, str],  # Comments by their lines
    returned: ast.expr | None,  # What comes back
) -> str:  # HTML; empty where there is nothing to say
    "Parameters, their types, defaults and remarks, and what comes back."
    lines = [argument.node.end_lineno for argument in given]
    rows = []
    for argument, line in zip(given, lines):
        note = notes.get(line, '') if lines.count(line) == 1 else ''
        kind = as_code(source_of(argument.annotation))
        default = as_code(source_of(argument.default))
        rows.append(table_row(as_code(argument.name), kind, default, remark(note)))
    if returned:
        line = returned.end_lineno
        note = notes.get(line, '') if line not in lines else ''
        rows.append(table_row('returns', as_code(source_of(returned)), '', remark(note)))
    if not rows:
        return ''
    head = ''.join(f'<th>{column}</th>' for column in COLUMNS)
    inside = f'<thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
    return f'<div class="table-wrapper parameters"><table class="docutils">{inside}</table></div>'


def prose(
    text: str | None,  # A docstring
) -> str:
    "A docstring as Markdown that says no more than it said."

    def plain(part):
        if part.startswith('`'):
            return part
        return re.sub(r'([*_$\[\]\\])', r'\\\1', part.replace('<', '&lt;'))

    return ''.join(map(plain, re.split(r'(`[^`]*`)', text or '')))


def fenced(
    text: str,  # Python
    kind: str = 'python',  # How it is coloured
) -> str:
    "A block of code."
    return f'```{kind}\n{text}\n```'


def variable(
    node: ast.Assign | ast.AnnAssign,  # Its definition
    notes: Mapping[int, str],  # Comments by their lines
) -> list[str]:  # Parts of a page
    "A variable: its value and its comment."
    value = ast.unparse(node)
    if len(value) > LONGEST:
        block = fenced(value[:LONGEST] + ' …', 'text')  # Half a string is no Python
    else:
        block = fenced(value)
    return [block, prose(notes.get(node.end_lineno))]


def called(
    name: str,  # Behind its class
    node: ast.AST,  # Function or class
    notes: Mapping[int, str],  # Comments by their lines
) -> list[str]:  # Parts of a page
    "A function or a class: its call, docstring and parameters."
    is_class = isinstance(node, ast.ClassDef)
    given = fields(node) if is_class else arguments(node)
    call = signature(name, node, given)
    block = fenced(f'class {call}' if is_class else call)
    parameters = table(given, notes, getattr(node, 'returns', None))
    return [block, prose(ast.get_docstring(node)), parameters]


def entry(
    symbol: Symbol,  # Public
    notes: Mapping[int, str],  # Comments of its module by their lines
    links: str,  # Where it is written and explained
) -> str:  # Markdown
    "One symbol: heading, call, docstring, parameters, links."
    level = '###' if '.' in symbol.name else '##'
    head = f'<a id="{symbol.name}"></a>\n\n{level} `{symbol.name}`'
    if symbol.is_variable:
        parts = variable(symbol.node, notes)
    else:
        parts = called(symbol.name, symbol.node, notes)
    return '\n\n'.join(part for part in (head, *parts, links) if part)


class Module:
    "A module of the package with its public names."

    def __init__(
        self,
        path: Path,  # Its file
        page_of: Callable[[str], str],  # Path of a notebook below nbs/ to its page
    ):
        text = path.read_text(encoding='utf-8')
        self.path = path
        self.name = module_name(path)
        self.page = 'api/' + self.name.replace('.', '/')
        self.up = '../' * self.page.count('/')
        self.tree = ast.parse(text)
        self.notes = comments(text)
        self.symbols = list(self.read(text, page_of))

    def read(self, text, page_of):
        "Public names, each with the page of the notebook that it comes from."
        cells = []
        for number, line in enumerate(text.splitlines(), 1):
            marker = re.match(r'# %% \S*?nbs/(\S+)\.ipynb', line)
            if marker:
                cells.append((number, page_of(marker[1])))
        for name, node in definitions(self.tree):
            above = [page for number, page in cells if number < node.lineno]
            if above:
                yield Symbol(name, node, above[-1])

    def pages(self):
        "Pages of the notebooks that the module comes from."
        return list(dict.fromkeys(symbol.page for symbol in self.symbols))


def anchor_of(
    symbol: Symbol,  # Public
) -> str:  # Empty where its page has none
    "The anchor of a symbol on the page that explains it."
    if symbol.is_variable:
        left = ast.unparse(symbol.node).split('=')[0]
        if symbol.name[0].islower() or ',' in left:
            return ''
    return '#' + symbol.head.lower()


def index_text(
    title: str,  # Of the page
    place: str,  # What the modules lie in
    modules: list[Module],  # At least one
) -> str:  # Markdown
    "The page that lists the modules of a room."
    entries = '\n'.join(f'{module.name} </{module.page}>' for module in modules)
    return f'# {title}\n\nModules of `{place}`.\n\n```{{toctree}}\n:titlesonly:\n\n{entries}\n```\n'


class Reference:
    "Pages of the reference, and where each symbol of a notebook is in them."

    def __init__(
        self,
        package: Path,  # Its folder
        address: str,  # Of the repository
        page_of: Callable[[str], str],  # Path of a notebook below nbs/ to its page
    ):
        self.package = package
        self.address = address
        self.modules = [Module(path, page_of) for path in sorted(package.rglob('*.py')) if is_module(path)]
        self.places = {
            (module.name, symbol.name): f'{module.page}.html#{symbol.name}'
            for module in self.modules
            for symbol in module.symbols
        }

    def links(self, module, symbol):
        "Where a symbol is written and where it is explained."
        explained = f'{module.up}{symbol.page}.html{anchor_of(symbol)}'
        file = f'{self.package.name}/{module.path.relative_to(self.package).as_posix()}'
        source = f'{self.address}/{file}#L{symbol.node.lineno}-L{symbol.node.end_lineno}'
        return f'<a class="more" href="{explained}">Explained</a> · <a class="more" href="{source}">Source</a>'

    def text(self, module):
        "The page of a module."
        parts = [f'# `{self.package.name}.{module.name}`', prose(ast.get_docstring(module.tree))]
        for page in module.pages():
            parts.append(f'<a class="more" href="{module.up}{page}.html">The page that explains it</a>')
        for symbol in module.symbols:
            parts.append(entry(symbol, module.notes, self.links(module, symbol)))
        return '\n\n'.join(parts) + '\n'

    def indices(self, rooms):
        "Name, title, place and modules of each index: one per room, and one for what is in none."
        for room, title in rooms.items():
            inside = [module for module in self.modules if module.name.startswith(f'{room}.')]
            yield room, title, f'{self.package.name}.{room}', inside
        outside = [module for module in self.modules if '.' not in module.name]
        yield *TOP, self.package.name, outside

    def write(
        self,
        folder: Path,  # Where Sphinx reads
        rooms: Mapping[str, str],  # Folder of the package to its title
    ) -> Iterator[str]:  # Names of the indices, without those that would be empty
        "Write all pages."
        for module in self.modules:
            file = folder / f'{module.page}.md'
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.text(module), encoding='utf-8')
        for name, title, place, modules in self.indices(rooms):
            if modules:
                index = f'api/of_{name}'
                (folder / f'{index}.md').write_text(index_text(title, place, modules), encoding='utf-8')
                yield index
