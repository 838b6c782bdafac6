"The reference: one page per module, from what the exported package says of itself; nothing is imported."

import ast
import html
import io
import re
import tokenize


def comments(text):
    "Comments of a module by their lines."
    return {
        t.start[0]: t.string.lstrip('# ').strip()
        for t in tokenize.generate_tokens(io.StringIO(text).readline)
        if t.type == tokenize.COMMENT
    }


def patched(node):
    "The class that a function with `@patch` is a method of, or an empty text."
    if not any(ast.unparse(d) == 'patch' for d in getattr(node, 'decorator_list', [])):
        return ''
    return ast.unparse(node.args.args[0].annotation).strip('\'"')


def is_public(name):
    return not name.startswith('_') or name == '__call__'


def symbols(tree):
    "Public names of a module in its order: name with the class, and node."
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and is_public(node.name):
            yield f'{owner}.{node.name}' if (owner := patched(node)) else node.name, node
            for f in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(f, ast.FunctionDef) and is_public(f.name):
                    yield f'{node.name}.{f.name}', f
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            left = node.targets[0] if isinstance(node, ast.Assign) else node.target
            yield from (
                (n.id, node) for n in getattr(left, 'elts', [left]) if isinstance(n, ast.Name) and is_public(n.id)
            )


def arguments(node):
    "Arguments of a function as (name, node, annotation, default)."
    a = node.args
    plain = a.posonlyargs + a.args
    defaults = [None] * (len(plain) - len(a.defaults)) + a.defaults
    rows = [(p.arg, p, p.annotation, d) for p, d in zip(plain, defaults)]
    if a.vararg:
        rows.append(('*' + a.vararg.arg, a.vararg, a.vararg.annotation, None))
    rows += [(p.arg, p, p.annotation, d) for p, d in zip(a.kwonlyargs, a.kw_defaults)]
    if a.kwarg:
        rows.append(('**' + a.kwarg.arg, a.kwarg, a.kwarg.annotation, None))
    return rows[1:] if rows and (rows[0][0] in ('self', 'cls') or patched(node)) else rows


def fields(node):
    "What a class is made with: the arguments of its `__init__`, or its annotated fields."
    for f in node.body:
        if isinstance(f, ast.FunctionDef) and f.name == '__init__':
            return arguments(f)
    return [
        (f.target.id, f, f.annotation, f.value)
        for f in node.body
        if isinstance(f, ast.AnnAssign) and is_public(f.target.id)
    ]


def source_of(node):
    return ast.unparse(node) if node else ''


def signature(name, node, rows):
    "How a function or a class is called, with types and defaults, one argument a line where it is long."
    star = ['*'] if isinstance(node, ast.FunctionDef) and node.args.kwonlyargs and not node.args.vararg else []
    first_only = node.args.kwonlyargs[0].arg if star else None
    said = [
        t
        for n, _, a, d in rows
        for t in (star if n == first_only else [])
        + [n + (f':{source_of(a)}' if a else '') + (f'={source_of(d)}' if d else '')]
    ]
    end = f'->{source_of(node.returns)}' if getattr(node, 'returns', None) else ''
    short = f'{name}({", ".join(said)}){end}'
    return short if len(short) <= 80 else f'{name}(\n' + ''.join(f'    {s},\n' for s in said) + f'){end}'


def remark(text):
    "A comment as HTML."
    return re.sub(r'`([^`]+)`', r'<code>\1</code>', html.escape(text))


def table(rows, notes, returned):
    "Parameters, their types, defaults and remarks, and what comes back."
    lines = [node.end_lineno for _, node, *_ in rows]
    told = [
        (n, source_of(a), source_of(d), notes.get(node.end_lineno, '') if lines.count(node.end_lineno) == 1 else '')
        for n, node, a, d in rows
    ]
    if returned:
        told.append(
            (
                'returns',
                source_of(returned),
                '',
                notes.get(returned.end_lineno, '') if returned.end_lineno not in lines else '',
            )
        )
    if not told:
        return ''

    def code(t):
        return f'<code>{html.escape(t)}</code>' if t else ''

    body = ''.join(
        f'<tr><th scope="row">{code(n) if n != "returns" else "returns"}</th><td>{code(t)}</td><td>{code(d)}</td><td>{remark(r)}</td></tr>'
        for n, t, d, r in told
    )
    return f'<div class="table-wrapper parameters"><table class="docutils"><thead><tr><th>name</th><th>type</th><th>default</th><th>what it is</th></tr></thead><tbody>{body}</tbody></table></div>'


def prose(text):
    "A docstring as Markdown that says no more than it said."
    return ''.join(
        p if p.startswith('`') else re.sub(r'([*_$\[\]\\])', r'\\\1', p.replace('<', '&lt;'))
        for p in re.split(r'(`[^`]*`)', text or '')
    )


def entry(name, node, notes, links):
    "One symbol: heading, call, docstring, parameters, links."
    head = f'<a id="{name}"></a>\n\n{"###" if "." in name else "##"} `{name}`'
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        said, kind = ast.unparse(node), 'python'
        if len(said) > 300:
            said, kind = said[:300] + ' …', 'text'  # Half a string is no Python
        text, rows = notes.get(node.end_lineno, ''), ''
    else:
        kind, given = 'python', fields(node) if isinstance(node, ast.ClassDef) else arguments(node)
        said, text = (
            ('class ' if isinstance(node, ast.ClassDef) else '') + signature(name, node, given),
            ast.get_docstring(node),
        )
        rows = table(given, notes, getattr(node, 'returns', None))
    return '\n\n'.join(filter(None, (head, f'```{kind}\n{said}\n```', prose(text), rows, links)))


class Reference:
    "Pages of the reference, and where each symbol of a notebook is in them."

    def __init__(self, package, address, page_of):
        self.package, self.address, self.page_of = (
            package,
            address,
            page_of,
        )  # `page_of`: a notebook's path below nbs/ to its page
        self.paths = sorted(p for p in package.rglob('*.py') if p.name not in ('__init__.py', '_modidx.py'))
        self.entries = {self.page(p): list(self.read(p)) for p in self.paths}
        self.places = {
            (notebook, name.split('.')[-1] if own else name): f'{page}.html#{name}'
            for page, found in self.entries.items()
            for name, _, notebook, _, own in found
        }

    def page(self, path):
        return 'api/' + path.relative_to(self.package).with_suffix('').as_posix()

    def read(self, path):
        "Symbols of a module: name, node, page of the notebook, comments, and whether it stands by itself there."
        text = path.read_text(encoding='utf-8')
        cells = [
            (i, m[1])
            for i, line in enumerate(text.splitlines(), 1)
            if (m := re.match(r'# %% \S*?nbs/(\S+)\.ipynb', line))
        ]
        tree, notes = ast.parse(text), comments(text)
        for name, node in symbols(tree):
            notebook = next((n for i, n in reversed(cells) if i < node.lineno), '')
            if notebook:
                yield name, node, self.page_of(notebook), notes, node in tree.body

    def links(self, path, node, notebook, anchor):
        "Where a symbol is written and where it is explained."
        up = '../' * self.page(path).count('/')
        file = f'{self.address}/{self.package.name}/{path.relative_to(self.package).as_posix()}#L{node.lineno}-L{node.end_lineno}'
        return f'<a class="more" href="{up}{notebook}.html{anchor}">Explained</a> · <a class="more" href="{file}">Source</a>'

    def text(self, path):
        "The page of a module."
        module = '.'.join([self.package.name, *path.relative_to(self.package).with_suffix('').parts])
        parts = [f'# `{module}`', prose(ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))))]
        for notebook in dict.fromkeys(n for _, _, n, _, _ in self.entries[self.page(path)]):
            parts.append(
                f'<a class="more" href="{"../" * self.page(path).count("/")}{notebook}.html">The page that explains it</a>'
            )
        for name, node, notebook, notes, own in self.entries[self.page(path)]:
            anchor = '#' + (name.split('.')[-1] if own else name.split('.')[0]).lower()
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and (
                name[0].islower() or ',' in ast.unparse(node).split('=')[0]
            ):
                anchor = ''  # Pages have none for a variable
            parts.append(entry(name, node, notes, self.links(path, node, notebook, anchor)))
        return '\n\n'.join(parts) + '\n'

    def write(self, folder, rooms):
        "Write all pages; returns the names of the rooms' indices."
        for path in self.paths:
            page = folder / f'{self.page(path)}.md'
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(self.text(path), encoding='utf-8')
        for room, caption in rooms.items():
            inside = [self.page(p) for p in self.paths if p.relative_to(self.package).parts[0] == room]
            index = folder / 'api' / f'of_{room}.md'
            index.write_text(
                f'# {caption}\n\nModules of `{self.package.name}.{room}`.\n\n```{{toctree}}\n:titlesonly:\n\n'
                + '\n'.join(f'{p.removeprefix("api/").replace("/", ".")} </{p}>' for p in inside)
                + '\n```\n',
                encoding='utf-8',
            )
            yield f'api/of_{room}'
