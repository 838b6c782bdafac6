"What a notebook's cells become on its page."

import html
import re

import colab


def directives(cell):
    return dict(re.findall(r'^#\|\s*([\w-]+):?[ \t]*(.*)$', ''.join(cell['source']), re.M))


def body(cell):
    return '\n'.join(line for line in ''.join(cell['source']).splitlines() if not line.startswith('#|')).strip('\n')


def markdown(id_, source):
    return dict(cell_type='markdown', id=id_, metadata={}, source=source)


def local_links(text, base, up):
    "Links that nbdev made absolute, as HTML relative to the page."
    text = re.sub(r'\{target="_blank"[^}]*\}', '', text)

    def link(m):
        target = re.sub(r'(#\w+)\..*', r'\1', m[2])  # a method has no anchor of its own, its class has
        return f'<a href="{up}{target}"><code>{html.escape(m[1])}</code></a>'

    return re.sub(r'\[`([^`\]]+)`\]\(' + re.escape(base) + r'([^)\s]+)\)', link, text)


def page_of(notebook):
    "The page of a notebook, which has no number."
    return re.sub(r'(^|/)\d+_(?=[^/]*$)', r'\1', notebook)


def notebook_links(text, address, up):
    "Links to notebooks in the repository, as links to their pages."
    return re.sub(
        r'\[([^\[\]]+)\]\(' + re.escape(address) + r'/([^\s)]+)\.ipynb\)',
        lambda m: f'<a href="{up}{page_of(m[2])}.html">{m[1]}</a>',
        text,
    )


def anchors(cell, page, places, up):
    "A cell of anchors for what a code cell defines, under the names that nbdev links to, each with its way to the reference."
    names = [
        a or b
        for a, b in re.findall(r'^(?:def|class) (\w+)|^([A-Z]\w+) *=', body(cell), re.M)
        if not (a or b).startswith('_')
    ]
    tags = ''.join(f'<a id="{n.lower()}"></a>' for n in names)
    links = ' · '.join(f'<a href="{up}{places[page, n]}"><code>{n}</code></a>' for n in names if (page, n) in places)
    return (
        [markdown('a' + cell['id'], f'<p class="symbols">{tags}Reference: {links}</p>' if links else tags)]
        if tags
        else []
    )


def lead(source, lesson):
    "A title cell with its promise set apart."
    title, promise, *rest = source.split('\n\n', 2)
    label = '<span class="label">What you will learn</span>\n\n' if lesson else ''
    return '\n\n'.join([title, f':::{{container}} lead\n{label}{promise.removeprefix("> ")}\n:::', *rest])


def facts(name, page, code, log, up, module):
    "A box under the title: what the page needs, where to run it, where it is written."
    needs = colab.needs(name, log)
    if name not in colab.NOTEBOOKS and any({'gpu', 'slow', 'network'} & set(directives(c)) for c in code):
        needs += ' Some cells take long or need more, and are not run with the tests.'
    lines = [re.sub('^Needs', '<b>Needs</b>', needs)]
    address = f'{colab.SETTINGS["git_url"]}/blob/{colab.SETTINGS["branch"]}/nbs/{name}.ipynb'
    lines.append(f'<b>Notebook</b> <a href="{address}">nbs/{name}.ipynb</a>')
    if name in colab.NOTEBOOKS:
        lines[-1] += (
            f' · <a href="{address.replace("https://github.com", "https://colab.research.google.com/github")}">Open in Colab</a>'
        )
    if module:
        lines.append(
            f'<b>Exports</b> <a href="{up}api/{module.replace(".", "/")}.html"><code>{colab.SETTINGS["lib_name"]}.{module}</code></a>'
        )
    return markdown('facts', '<ul class="facts">' + ''.join(f'<li>{line}</li>' for line in lines) + '</ul>')


def code_cell(cell):
    "A code cell as it is shown: its picture with a text in its place, a solution folded away."
    said = directives(cell)
    tags, shown = (['remove-input'] if said.get('echo') == 'false' else []), {}
    if said.get('fig-alt'):
        shown['image'] = dict(alt=said['fig-alt'].strip('"'))
    if said.get('code-fold') == 'true':
        label = said.get('code-summary', '').strip('"')
        tags.append('hide-cell' if label.startswith('Solution') else 'hide-input')
        shown |= dict(code_prompt_show=label or 'Show the code', code_prompt_hide=label or 'Hide the code')
    metadata = dict(tags=tags) | (dict(mystnb=shown) if shown else {})
    return dict(
        cell_type='code',
        id=cell['id'],
        metadata=metadata,
        source=body(cell),
        outputs=cell['outputs'],
        execution_count=None,
    )


def is_hidden(cell):
    said = directives(cell)
    return any(k.startswith('hide') for k in said) or 'default_exp' in said or not body(cell)
