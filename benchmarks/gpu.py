"""Everything that is to be measured on a card, in the order of its worth, in less than fifteen minutes.

python benchmarks/gpu.py OUT.json [PART ...]          PARTS in turn, or those that are named
python benchmarks/gpu.py OUT.json --tiny              the same with a tiny model, on a CPU too, to see that it runs

Each part has its own limit of time and is written into OUT.json as soon as it ends: what it measured, or how it failed.
One that was stopped leaves what it had measured until then. Nothing is downloaded."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
RECIPES = HERE.parent / 'recipes'
# In seconds; the first holds a whole generation of 160 rollouts and the update on it, ours and then TRL's
PARTS = dict(
    rl_7b=(500, ['gpu_rl.py', RECIPES / '7b' / 'rl.yaml', ..., '1']),
    sft_7b=(120, ['gpu_sft.py', 'Qwen/Qwen2.5-Omni-7B', ...]),
    rl_3b_in_16_gb=(150, ['gpu_rl.py', RECIPES / '3b_16gb' / 'rl.yaml', ..., '2', '16']),
)


def tiny_parts(
    folder: Path,  # For a configuration and a recipe
) -> dict:  # Like `PARTS`
    "The same parts for a model of a few thousand weights."
    import yaml
    from gpu_sft import rows

    from omnisapiens_nb.sft.model import tiny_config

    _, tokenizer = rows(folder)
    tiny_config(tokenizer).save_pretrained(folder / 'model')
    recipe = yaml.safe_load((RECIPES / 'tiny' / 'rl_trl.yaml').read_text(encoding='utf-8'))
    recipe['model'] = str(folder / 'model')
    recipe['train'] |= dict(max_completion_length=4, per_device_train_batch_size=5)
    (folder / 'rl.yaml').write_text(yaml.safe_dump(recipe), encoding='utf-8')
    return dict(
        rl_7b=(300, ['gpu_rl.py', folder / 'rl.yaml', ..., '1']),
        sft_7b=(300, ['gpu_sft.py', folder / 'model', ..., '2', '4']),
        rl_3b_in_16_gb=(300, ['gpu_rl.py', folder / 'rl.yaml', ..., '1']),
    )


def measure(
    limit: float,  # Seconds
    command: list,  # A script of this folder and its arguments, `...` for the file that it writes
) -> dict:
    "What a script measured, how long it took, and where it failed the end of what it said."
    out = Path(tempfile.mkdtemp()) / 'out.json'
    words = [str(out if word is ... else word) for word in command]
    began = time.monotonic()
    try:
        run = subprocess.run(
            [sys.executable, HERE / words[0], *words[1:]], timeout=limit, capture_output=True, text=True
        )
        failed = run.stderr.strip().splitlines()[-1:] if run.returncode else []
    except subprocess.TimeoutExpired:
        failed = [f'stopped after {limit} seconds']
    facts = json.loads(out.read_text(encoding='utf-8')) if out.is_file() else {}
    return facts | dict(wall_seconds=round(time.monotonic() - began), failed=failed)


def main(
    out: str,  # File of the log; parts that are in it and not measured again stay
    *names: str,  # Of `PARTS`, or `--tiny`
):
    "Measure the parts in turn; stops with the names of those that failed, once all have been tried."
    tiny = '--tiny' in names
    parts = tiny_parts(Path(tempfile.mkdtemp())) if tiny else PARTS
    chosen = [name for name in names if name != '--tiny'] or list(parts)
    unknown = sorted(set(chosen) - set(parts))
    if unknown:
        sys.exit(f'no part is called {", ".join(unknown)}; there are {", ".join(parts)}')
    file = Path(out)
    for name in chosen:
        log = json.loads(file.read_text(encoding='utf-8')) if file.is_file() else {}
        log[name] = measure(*parts[name])
        file.write_text(json.dumps(log, indent=1) + '\n', encoding='utf-8')
    failed = [f'{name}: {" ".join(log[name]["failed"])}' for name in chosen if log[name]['failed']]
    if failed:
        sys.exit('\n'.join(failed))


if __name__ == '__main__':
    main(*sys.argv[1:])
