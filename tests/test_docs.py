"The site builds from the notebooks without warnings or broken links, and needs no other host."

import json
import re
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / 'tools'))
import cells
import house
import terms


def test_every_notebook_has_a_page(site):
    pages = {p.stem for p in site.rglob('*.html')}
    for notebook in (ROOT / 'nbs').rglob('*.ipynb'):
        assert re.sub(r'^\d+_', '', notebook.stem) in pages


def test_nothing_is_loaded_from_another_host(site):
    for page in site.rglob('*.html'):
        loaded = re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text(encoding='utf-8')
        )
        assert loaded == [], page


def test_tables_are_tables(site):
    for page in site.rglob('*.html'):
        assert '<p>|' not in page.read_text(encoding='utf-8'), page


def test_formulas_are_set(site):
    text = (site / 'rl' / 'harpo.html').read_text(encoding='utf-8')
    assert 'tex-svg.js' in text and r'\[' in text


def test_solutions_follow_their_questions(site):
    text = (site / 'rl' / 'harpo.html').read_text(encoding='utf-8')
    after = text[text.index('id="exercises"') :]
    assert after.count('tag_hide-cell') == after.count('<details') >= 3
    assert text.index('Which clamp is met first?') < text.index('collapsed admonition-title">Solution')


@pytest.mark.parametrize('path', house.notebooks(), ids=lambda p: p.stem)
def test_every_picture_has_a_text(path):
    assert not list(house.pictures(path))


def test_a_picture_without_a_text_is_told(tmp_path):
    code = dict(cell_type='code', id='x', source='plot()', outputs=[dict(data={'image/png': ''})])
    page = tmp_path / 'page.ipynb'
    for source, faults in (
        ('plot()', 1),
        ('#| fig-alt: short\nplot()', 1),
        ('#| fig-alt: A curve that rises from zero to one.\nplot()', 0),
    ):
        page.write_text(json.dumps(dict(cells=[code | dict(source=source)])), encoding='utf-8')
        assert len(list(house.pictures(page))) == faults


def test_the_text_is_the_picture_s(site):
    for name, cell in (('rl/00_policy_gradient', '11eb8150'), ('pieces', 'pie_way_draw')):
        source = next(
            ''.join(c['source'])
            for c in json.loads((ROOT / 'nbs' / f'{name}.ipynb').read_text(encoding='utf-8'))['cells']
            if c['id'] == cell
        )
        page = site / f'{re.sub(r"[0-9]+_", "", name)}.html'
        assert f'alt="{cells.directives(dict(source=source))["fig-alt"]}"' in page.read_text(encoding='utf-8')


def test_solutions_are_folded():
    source = '#| code-fold: true\n#| code-summary: Solution\nanswer = 42'
    made = cells.code_cell(dict(id='x', source=source, outputs=[]))
    assert (
        made['metadata']
        == dict(tags=['hide-cell'], mystnb=dict(code_prompt_show='Solution', code_prompt_hide='Solution'))
        and made['source'] == 'answer = 42'
    )
    assert cells.code_cell(dict(id='x', source='#| code-fold: true\n1', outputs=[]))['metadata']['tags'] == [
        'hide-input'
    ]
    assert not cells.is_hidden(dict(source='#| fig-alt: hidden and exported\nplot()'))


def test_terms_are_linked_once_and_in_prose_only():
    book = terms.Terms(
        '### rollout\n\nOne answer.\n\n### group (of rows)\n\nX.\n\n### live group\n\nAlso: live prompt\n\nY.\n'
    )
    text = '# A rollout\n\n`rollout` and $rollout$, [rollout](x); Rollouts, a rollout, a group, live prompts.\n'
    linked = book.link(text, set(), '../')
    assert linked == (
        '# A rollout\n\n`rollout` and $rollout$, [rollout](x); '
        '<a class="term" href="../glossary.html#rollout">Rollouts</a>, a rollout, a group, <a class="term" href="../glossary.html#live-group">live prompts</a>.\n'
    )
    assert book.link('a rollout', {'rollout'}, '') == 'a rollout'


def test_every_exported_name_is_in_the_reference(site):
    import ast

    for path in house.modules():
        page = (site / 'api' / path.relative_to(house.PACKAGE).with_suffix('.html')).read_text(encoding='utf-8')
        exported = next(
            (
                ast.literal_eval(n.value)
                for n in ast.parse(path.read_text(encoding='utf-8')).body
                if isinstance(n, ast.Assign) and n.targets[0].id == '__all__'
            ),
            [],
        )
        for name in exported:
            assert f'<a id="{name}">' in page or name.startswith('_'), f'{path.stem}: {name}'


def test_reference_says_types_defaults_and_remarks(site):
    page = (site / 'api' / 'rl' / 'harpo.html').read_text(encoding='utf-8')
    row = r'<th scope="row"><code>beta</code></th><td><code>float</code></td><td></td><td>Weight of the past</td>'
    assert row in page and 'harpo.py#L' in page and '../../rl/harpo.html#average' in page
    assert '../api/rl/harpo.html#Average' in (site / 'rl' / 'harpo.html').read_text(encoding='utf-8')


def test_pages_say_what_they_need(site):
    def page(name):
        return (site / f'{name}.html').read_text(encoding='utf-8')

    assert re.search(r'<b>Needs</b> a CPU, .*GB, measured', page('rl/harpo')) and 'Open in Colab' in page('rl/harpo')
    assert re.search(r'<b>Needs</b> a CPU, .*one thread\.</li>', page('rl/advantages')) and 'Open in Colab' not in page(
        'rl/advantages'
    )


def test_links_into_the_repository_are_to_what_is_there(site):
    "Source lines, notebooks, and what opens on Colab; that no page has a link to a missing page or anchor the build itself sees to."
    settings = cells.colab.SETTINGS
    owner, branch = settings['git_url'].removeprefix('https://github.com/'), settings['branch']
    pattern = rf'href="https://(?:colab\.research\.google\.com/github|github\.com)/{owner}/blob/{branch}/([^"#]+)(?:#L(\d+)-L(\d+))?"'
    found = {m for page in site.rglob('*.html') for m in re.findall(pattern, page.read_text(encoding='utf-8'))}
    assert sum(path.endswith('.py') for path, *_ in found) > 300 and sum(
        path.endswith('.ipynb') for path, *_ in found
    ) == len(house.notebooks())
    for path, first, last in found:
        assert (ROOT / path).is_file(), path
        if first:
            assert 1 <= int(first) <= int(last) <= len((ROOT / path).read_text(encoding='utf-8').splitlines()), path
