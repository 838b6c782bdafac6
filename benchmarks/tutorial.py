"Run the tutorial as users do and record time, memory and scores: python benchmarks/tutorial.py OUT NAME [--source NAME=FOLDER ...]"
import json, os, platform, resource, shutil, subprocess, sys, time
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parents[1]/'nbs'/'results'

def main(out, name, *sources):
    command = ['omnisapiens-nb', 'tutorial', '--out', out, *sources]
    start = time.monotonic()
    subprocess.run([sys.executable, '-m', 'omnisapiens_nb.cli', *command[1:]], check=True, env=os.environ | dict(OMP_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false'))
    seconds, peak = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    shown = ['omnisapiens-nb', 'tutorial', *(s if s.startswith('--') else f'{s.split("=")[0]}=…/{Path(s).name}' for s in sources)]
    facts = dict(command=' '.join(shown), seconds=round(seconds), peak_megabytes=round(peak/1024), cores=os.cpu_count(), machine=platform.machine(),
                 python=platform.python_version(), torch=version('torch'), package=version('omnisapiens_nb'))
    (RESULTS/f'{name}_run.json').write_text(json.dumps(facts, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    shutil.copy(Path(out)/'scores.csv', RESULTS/f'{name}_scores.csv')

if __name__ == '__main__': main(*sys.argv[1:])
