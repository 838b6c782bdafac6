"What a notebook's cells become on its page."

import html
import re
from collections.abc import Mapping

import colab

REPOSITORY = f'{colab.SETTINGS["git_url"]}/blob/{colab.SETTINGS["branch"]}'
NOT_TESTED = {'gpu', 'slow', 'network'}  # Directives of cells that are not run with the tests


def directives(
    cell: dict,  # Of code
) -> dict[str, str]:  # Name to value, which may be empty
    "Lines of `#| name: value` of a cell."
    return dict(re.findall(r'^#\|\s*([\w-]+):?[ \t]*(.*)$', ''.join(cell['source']), re.M))


def body(
    cell: dict,  # Of code
) -> str:
    "A cell without its directives."
    lines = ''.join(cell['source']).splitlines()
    return '\n'.join(line for line in lines if not line.startswith('#|')).strip('\n')


def is_hidden(
    cell: dict,  # Of code
) -> bool:
    "Whether a cell is no part of the page."
    said = directives(cell)
    if 'default_exp' in said or not body(cell):
        return True
    return any(name.startswith('hide') for name in said)


def is_exported(
    cell: dict,  # Of code
) -> bool:
    "Whether a cell goes into the package."
    return any(name.startswith('export') for name in directives(cell))


def default_module(
    code: list[dict],  # Cells of a notebook
) -> str:  # Empty where there is none
    "The module that a notebook writes."
    for cell in code:
        module = directives(cell).get('default_exp')
        if module:
            return module
    return ''


def module_of(
    cell: dict,  # Exported
    default: str,  # From `default_module`
) -> str:
    "The module that a cell goes to: the notebook's, or the one that its directive names."
    said = directives(cell)
    named = [value for name, value in said.items() if name.startswith('export') and value]
    return named[0] if named else default


def modules_of(
    code: list[dict],  # Cells of a notebook
) -> list[str]:  # The notebook's own first
    "Every module that cells of a notebook go to."
    default = default_module(code)
    found = [default, *(module_of(cell, default) for cell in code if is_exported(cell))]
    return [module for module in dict.fromkeys(found) if module]


def markdown(
    id_: str,  # Of the cell
    source: str,  # Its text
) -> dict:
    "A cell of Markdown."
    return dict(cell_type='markdown', id=id_, metadata={}, source=source)


def local_links(
    text: str,  # Markdown
    base: str,  # Address of the published site
    up: str,  # Way from the page to the site's root
) -> str:
    "Links that nbdev made absolute, as HTML relative to the page."
    text = re.sub(r'\{target="_blank"[^}]*\}', '', text)

    def link(found):
        words, address = found.groups()
        target = re.sub(r'(#\w+)\..*', r'\1', address)  # A method has no anchor of its own, its class has
        return f'<a href="{up}{target}"><code>{html.escape(words)}</code></a>'

    return re.sub(r'\[`([^`\]]+)`\]\(' + re.escape(base) + r'([^)\s]+)\)', link, text)


def page_of(
    notebook: str,  # Path below nbs/, without suffix
) -> str:
    "The page of a notebook, which has no number."
    return re.sub(r'(^|/)\d+_(?=[^/]*$)', r'\1', notebook)


def notebook_links(
    text: str,  # Markdown
    address: str,  # Of nbs/ in the repository
    up: str,  # Way from the page to the site's root
) -> str:
    "Links to notebooks in the repository, as links to their pages."

    def link(found):
        words, notebook = found.groups()
        return f'<a href="{up}{page_of(notebook)}.html">{words}</a>'

    return re.sub(r'\[([^\[\]]+)\]\(' + re.escape(address) + r'/([^\s)]+)\.ipynb\)', link, text)


def public_names(
    source: str,  # Of an exported cell
) -> list[str]:  # Functions, classes, and constants that begin with a capital
    "Names that a cell defines and that have an anchor on its page."
    found = re.findall(r'^(?:def|class) (\w+)|^([A-Z]\w+) *(?::[^=\n]+)?=', source, re.M)
    names = [defined or assigned for defined, assigned in found]
    return [name for name in names if not name.startswith('_')]


def anchors(
    cell: dict,  # Exported
    module: str,  # Where to, from `module_of`
    places: Mapping[tuple[str, str], str],  # Module and name to the place in the reference
    up: str,  # Way from the page to the site's root
) -> list[dict]:  # One cell, or none where nothing is defined
    "Anchors for what a code cell defines, under the names that nbdev links to, each with its way to the reference."
    names = public_names(body(cell))
    if not names:
        return []
    text = ''.join(f'<a id="{name.lower()}"></a>' for name in names)
    known = {name: places[module, name] for name in names if (module, name) in places}
    links = [f'<a href="{up}{place}"><code>{name}</code></a>' for name, place in known.items()]
    if links:
        text = f'<p class="symbols">{text}Reference: {" · ".join(links)}</p>'
    return [markdown('a' + cell['id'], text)]


def lead(
    source: str,  # Of a title cell
    lesson: bool,  # Whether the promise is all that says what the page teaches
) -> str:
    "A title cell with its promise set apart."
    title, promise, *rest = source.split('\n\n', 2)
    label = '<span class="label">What you will learn</span>\n\n' if lesson else ''
    container = f':::{{container}} lead\n{label}{promise.removeprefix("> ")}\n:::'
    return '\n\n'.join([title, container, *rest])


def addresses(
    name: str,  # Of the notebook, below nbs/
) -> str:  # HTML
    "Where a notebook is, and where it opens in Colab."
    address = f'{REPOSITORY}/nbs/{name}.ipynb'
    links = [f'<a href="{address}">nbs/{name}.ipynb</a>']
    if name in colab.NOTEBOOKS:
        there = address.replace('https://github.com', 'https://colab.research.google.com/github')
        links.append(f'<a href="{there}">Open in Colab</a>')
    return ' · '.join(links)


def module_link(
    module: str,  # Inside the package
    up: str,  # Way from the page to the site's root
) -> str:  # HTML
    "A module with its way to the reference."
    place = f'{up}api/{module.replace(".", "/")}.html'
    return f'<a href="{place}"><code>{colab.SETTINGS["lib_name"]}.{module}</code></a>'


def facts(
    name: str,  # Of the notebook, below nbs/
    code: list[dict],  # Its code cells
    log: dict,  # What the runs took
    up: str,  # Way from the page to the site's root
) -> dict:  # A cell
    "A box under the title: what the page needs, where to run it, where it is written."
    needs = colab.needs(name, log)
    some_apart = any(NOT_TESTED & set(directives(cell)) for cell in code)
    if some_apart and name not in colab.NOTEBOOKS:
        needs += ' Some cells take long or need more, and are not run with the tests.'
    lines = [re.sub('^Needs', '<b>Needs</b>', needs), f'<b>Notebook</b> {addresses(name)}']
    modules = modules_of(code)
    if modules:
        lines.append(f'<b>Exports</b> {", ".join(module_link(module, up) for module in modules)}')
    items = ''.join(f'<li>{line}</li>' for line in lines)
    return markdown('facts', f'<ul class="facts">{items}</ul>')


def code_cell(
    cell: dict,  # Of code
) -> dict:
    "A code cell as it is shown: its picture with a text in its place, a solution and the versions folded away."
    said = directives(cell)
    tags = []
    shown = {}
    if cell['id'] == 'colab_versions':
        tags.append('hide-cell')
        shown |= dict(code_prompt_show='Versions', code_prompt_hide='Versions')
    if said.get('echo') == 'false':
        tags.append('remove-input')
    if said.get('fig-alt'):
        shown['image'] = dict(alt=said['fig-alt'].strip('"'))
    if said.get('code-fold') == 'true':
        label = said.get('code-summary', '').strip('"')
        tags.append('hide-cell' if label.startswith('Solution') else 'hide-input')
        shown['code_prompt_show'] = label or 'Show the code'
        shown['code_prompt_hide'] = label or 'Hide the code'
    metadata = dict(tags=tags)
    if shown:
        metadata['mystnb'] = shown
    return dict(
        cell_type='code',
        id=cell['id'],
        metadata=metadata,
        source=body(cell),
        outputs=cell['outputs'],
        execution_count=None,
    )
