"The site builds from the notebooks without warnings or broken links, and needs no other host."

import html
import re
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / 'tools'))
import cells
import described
import measures
import terms
from reference import Reference

HARPO = 'rl/harpo'


def text_of(site, page):
    "A built page."
    return (site / f'{page}.html').read_text(encoding='utf-8')


def texts(site):
    "All built pages by their paths."
    for path in site.rglob('*.html'):
        yield path, path.read_text(encoding='utf-8')


def page_of(path):
    "The page of a notebook, below the root of the site and without suffix."
    return cells.page_of(path.relative_to(measures.NBS).with_suffix('').as_posix())


def navigation(site):
    "Captions of the navigation with the HTML under each, as the front page has it."
    tree = text_of(site, 'index').split('<div class="sidebar-tree">')[1].split('</aside>')[0]
    _, *found = re.split(r'<span class="caption-text">([^<]+)</span>', tree)
    return dict(zip(found[::2], found[1::2]))


def entries(tree, level=r'\d'):
    "Pages that a part of the navigation leads to, at one level or at any."
    pattern = rf'<li class="toctree-l{level}[^>]*><a class="[^"]*reference internal" href="([^"]+)\.html"'
    return re.findall(pattern, tree)


def test_every_notebook_has_a_page(site):
    for path in measures.notebooks():
        assert (site / f'{page_of(path)}.html').is_file(), path


def test_every_page_of_the_learning_path_is_written():
    absent = [name for name in measures.LEARNING_PATH if not (measures.NBS / f'{name}.ipynb').is_file()]
    assert not absent
    assert len(set(measures.LEARNING_PATH)) == len(measures.LEARNING_PATH)


def test_a_page_that_is_not_written_is_left_out_of_the_path(monkeypatch):
    monkeypatch.setattr(measures, 'LEARNING_PATH', ('rl/02_groups', 'rl/99_absent', 'rl/06_harpo'))
    assert [path.stem for path in measures.learning_path()] == ['02_groups', '06_harpo']


def test_links_to_the_next_page_follow_the_learning_path(site):
    page = site / 'index.html'
    met = []
    for _ in measures.learning_path():
        text = page.read_text(encoding='utf-8')
        page = (page.parent / re.search(r'class="next-page" href="([^"]+)"', text)[1]).resolve()
        met.append(page.relative_to(site.resolve()).with_suffix('').as_posix())
    assert met == list(map(page_of, measures.learning_path()))


def test_the_navigation_is_folded_by_room(site):
    parts = navigation(site)
    assert list(parts) == ['Learning path', 'Look up', 'All pages by room', 'Reference']
    assert entries(parts['Learning path']) == list(map(page_of, measures.learning_path()))
    assert entries(parts['All pages by room'], '1') == [f'{room}/index' for room in measures.ROOMS]
    assert [p for p in entries(parts['All pages by room'], '2') if p.endswith('index')] == ['atlas/sources/index']
    sources = entries(parts['All pages by room'], '3')
    assert set(map(page_of, (measures.NBS / 'atlas' / 'sources').glob('*.ipynb'))) < set(sources)
    every = [page for part in parts.values() for page in entries(part)]
    assert len(set(every)) == len(every)
    assert {page_of(path) for path in measures.notebooks()} - {'index'} <= set(every)


def test_the_page_of_a_room_says_what_each_of_its_pages_promises(site):
    for path in measures.notebooks():
        folder, _, name = page_of(path).rpartition('/')
        if folder:
            article = text_of(site, f'{folder}/index').split('<article', 1)[1].split('</article>')[0]
            [item] = re.findall(rf'<a href="(?:\.\./)+{folder}/{name}\.html">.+?</a>.*?<br>(.+?)</li>', article, re.S)
            assert len(item) > 20, path
            assert ('learning path</span>' in article) == any(p.parent == path.parent for p in measures.learning_path())


def test_nothing_is_loaded_from_another_host(site):
    elsewhere = re.compile(r'<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="(https?:[^"]+)"')
    for path, text in texts(site):
        assert elsewhere.findall(text) == [], path


def test_tables_are_tables(site):
    for path, text in texts(site):
        assert '<p>|' not in text, path


def test_formulas_are_set(site):
    text = text_of(site, HARPO)
    assert 'tex-svg.js' in text
    assert r'\[' in text


def test_solutions_follow_their_questions(site):
    text = text_of(site, HARPO)
    exercises = text[text.index('id="exercises"') :]
    assert exercises.count('tag_hide-cell') == exercises.count('<details') >= 3
    assert text.index('Which clamp is met first?') < text.index('collapsed admonition-title">Solution')


@pytest.mark.parametrize('name', ['rl/01_policy_gradient', 'pieces'])
def test_the_text_is_the_picture_s(site, name):
    code = measures.cells(measures.NBS / f'{name}.ipynb', 'code')
    texts_of_pictures = [found['fig-alt'] for found in map(cells.directives, code) if 'fig-alt' in found]
    page = html.unescape(text_of(site, cells.page_of(name)))
    assert texts_of_pictures
    for alt in texts_of_pictures:
        assert f'alt="{alt}"' in page


def test_solutions_are_folded():
    solution = '#| code-fold: true\n#| code-summary: Solution\nanswer = 42'
    made = cells.code_cell(dict(id='x', source=solution, outputs=[]))
    prompts = dict(code_prompt_show='Solution', code_prompt_hide='Solution')
    assert made['metadata'] == dict(tags=['hide-cell'], mystnb=prompts)
    assert made['source'] == 'answer = 42'
    other = cells.code_cell(dict(id='x', source='#| code-fold: true\n1', outputs=[]))
    assert other['metadata']['tags'] == ['hide-input']
    assert not cells.is_hidden(dict(source='#| fig-alt: hidden and exported\nplot()'))
    versions = cells.code_cell(dict(id='colab_versions', source='versions()', outputs=[]))
    assert versions['metadata']['tags'] == ['hide-cell']


def test_a_cell_may_go_to_another_module():
    own = dict(id='a', source='#| export\ndef f(): pass')
    other = dict(id='b', source='#| export atlas.mini.meld\nSIZES: dict[str, int] = {}\nclass Meld: pass')
    code = [dict(id='c', source='#| default_exp atlas.mini'), own, other]
    assert cells.modules_of(code) == ['atlas.mini', 'atlas.mini.meld']
    assert cells.module_of(own, 'atlas.mini') == 'atlas.mini'
    module = cells.module_of(other, 'atlas.mini')
    places = {('atlas.mini.meld', 'Meld'): 'api/atlas/mini/meld.html#Meld', ('atlas.mini', 'SIZES'): 'wrong'}
    [made] = cells.anchors(other, module, places, '../')
    assert '<a id="sizes"></a><a id="meld"></a>' in made['source']
    assert '<a href="../api/atlas/mini/meld.html#Meld"><code>Meld</code></a></p>' in made['source']
    assert 'wrong' not in made['source']
    log = dict(notebooks={'atlas/03_mini': dict(seconds=9, peak_megabytes=200)})
    facts = cells.facts('atlas/03_mini', code, log, '../')['source']
    assert '<b>Exports</b>' in facts
    for name in ('mini', 'mini.meld'):
        link = f'../api/atlas/{name.replace(".", "/")}.html'
        assert f'<a href="{link}"><code>omnisapiens_nb.atlas.{name}</code></a>' in facts


def test_a_module_of_two_notebooks_has_both_pages(tmp_path, monkeypatch):
    package = tmp_path / 'package'
    package.mkdir()
    monkeypatch.setattr(measures, 'PACKAGE', package)
    (package / 'mini.py').write_text(
        '"""Small sources."""\n\n# AUTOGENERATED! DO NOT EDIT! File to edit: ../nbs/atlas/03_mini.ipynb.\n'
        '# %% ../nbs/atlas/03_mini.ipynb #aaaaaaaa\ndef faces(): pass\n'
        '# %% ../nbs/sft/04_warmstart.ipynb #bbbbbbbb\ndef voices(): pass\n',
        encoding='utf-8',
    )
    reference = Reference(package, 'https://example.org', cells.page_of)
    text = reference.text(reference.modules[0])
    assert text.count('The page that explains it') == 2
    assert '../atlas/mini.html#faces' in text
    assert '../sft/warmstart.html#voices' in text
    assert list(reference.places) == [('mini', 'faces'), ('mini', 'voices')]


def test_terms_are_linked_once_and_in_prose_only():
    glossary = '### rollout\n\nOne answer.\n\n### group (of rows)\n\nX.\n\n### live group\n\nAlso: live prompt\n\nY.\n'
    book = terms.Terms(glossary)
    text = '# A rollout\n\n`rollout` and $rollout$, [rollout](x); Rollouts, a rollout, a group, live prompts.\n'
    assert book.link(text, set(), '../') == (
        '# A rollout\n\n`rollout` and $rollout$, [rollout](x); '
        '<a class="term" href="../glossary.html#rollout">Rollouts</a>, a rollout, a group, '
        '<a class="term" href="../glossary.html#live-group">live prompts</a>.\n'
    )
    assert book.link('a rollout', {'rollout'}, '') == 'a rollout'


def test_every_exported_name_is_in_the_reference(site):
    for path in measures.modules():
        module = measures.module_name(path)
        page = text_of(site, 'api/' + module.replace('.', '/'))
        for name in described.all_of(described.parsed(path)):
            assert f'<a id="{name}">' in page or name.startswith('_'), f'{module}: {name}'


def test_every_module_is_in_one_index_of_the_reference(site):
    listed = []
    for path in sorted((site / 'api').glob('of_*.html')):
        article = path.read_text(encoding='utf-8').split('<article', 1)[1]
        found = re.findall(r'<li class="toctree-l1"><a class="reference internal" href="([^"]+)\.html"', article)
        assert found, f'{path.stem} is empty'
        listed += [name.replace('/', '.') for name in found]
    assert sorted(listed) == sorted(map(measures.module_name, measures.modules()))


def test_reference_says_types_defaults_and_remarks(site):
    page = text_of(site, f'api/{HARPO}')
    assert (
        '<th scope="row"><code>beta</code></th><td><code>float</code></td><td></td><td>Weight of the past</td>'
    ) in page
    assert 'harpo.py#L' in page
    assert '../../rl/harpo.html#average' in page
    assert '../api/rl/harpo.html#Average' in text_of(site, HARPO)


def test_pages_say_what_they_need(site):
    on_colab = text_of(site, HARPO)
    assert re.search(r'<b>Needs</b> a CPU, .*GB, measured', on_colab)
    assert 'Open in Colab' in on_colab
    elsewhere = text_of(site, 'rl/advantages')
    assert re.search(r'<b>Needs</b> a CPU, .*one thread\.</li>', elsewhere)
    assert 'Open in Colab' not in elsewhere


def test_links_into_the_repository_are_to_what_is_there(site):
    "Source lines, notebooks, and what opens on Colab; links inside the site are the build's to follow."
    settings = cells.colab.SETTINGS
    owner = settings['git_url'].removeprefix('https://github.com/')
    hosts = r'(?:colab\.research\.google\.com/github|github\.com)'
    pattern = rf'href="https://{hosts}/{owner}/blob/{settings["branch"]}/([^"#]+)(?:#L(\d+)-L(\d+))?"'
    found = {link for _, text in texts(site) for link in re.findall(pattern, text)}
    assert sum(path.endswith('.py') for path, *_ in found) > 300
    assert sum(path.endswith('.ipynb') for path, *_ in found) == len(measures.notebooks())
    for path, first, last in found:
        assert (ROOT / path).is_file(), path
        if first:
            lines = (ROOT / path).read_text(encoding='utf-8').splitlines()
            assert 1 <= int(first) <= int(last) <= len(lines), path
