"""A Sphinx extension: the navigation shows titles, so headings below them are cut off once, not anew on every page."""

from collections.abc import Callable
from functools import partial

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def title_alone(
    contents: nodes.bullet_list,  # Headings of a page as a tree
) -> nodes.bullet_list:
    "A page's contents without the headings below its title; lists of other pages stay."
    short = contents.deepcopy()
    for entry in short:
        if len(entry) > 1:
            lists = list(entry.findall(addnodes.toctree))
            entry[1][:] = lists
            entry[1:] = entry[1:] if lists else []
    return short


def by_titles(
    env: BuildEnvironment,
    titles: dict[str, nodes.bullet_list],  # Page → its contents by `title_alone`
    navigation: Callable[..., str],  # Sphinx's own, for one page
    **options: bool | int,  # Of `navigation`
) -> str:
    "The navigation of a page, made of titles where it shows nothing else."
    if not options.get('titles_only'):
        return navigation(**options)
    whole = env.tocs
    env.tocs = titles
    try:
        return navigation(**options)
    finally:
        env.tocs = whole


def setup(
    app: Sphinx,
) -> dict[str, bool]:  # What the extension allows
    "Give every page the quicker navigation, before furo asks for it."
    titles = {}

    def cut(app, env):
        titles.update({name: title_alone(contents) for name, contents in env.tocs.items()})

    def lighten(app, page, template, context, doctree):
        if 'toctree' in context:
            context['toctree'] = partial(by_titles, app.env, titles, context['toctree'])

    app.connect('env-check-consistency', cut)
    app.connect('html-page-context', lighten, priority=400)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
