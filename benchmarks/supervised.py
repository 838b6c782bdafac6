"""Train the supervised stages on the mini-Atlas of all thirteen sources with several seeds, and record times and answers.

python benchmarks/supervised.py OUT SEEDS [WORKERS]

A base is warmed up on sources of another seed. For each seed: heads, lm_head, adapters on the descriptors, and adapters on descriptors
that were dealt out anew among the rows of a dataset, a control with as many weights and no information."""
import json, os, platform, random, shutil, subprocess, sys, time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
import pandas as pd
import yaml
from omnisapiens_nb.atlas.store import open_atlas, open_splits, rewrite_atlas
from omnisapiens_nb.evaluation.scores import answers_by_dataset, read_predictions, table_of
from omnisapiens_nb.evaluation.similarity import minilm

ROOT = Path(__file__).parents[1]
FEATURES = ('ext_audio_feats', 'ext_video_feats')
MODELS = {'SFT': 'sft', 'BAM': 'bam', 'BAM, shuffled': 'shuffled'}

def cli(*args):
    "One command, and how many seconds it took."
    start = time.monotonic()
    subprocess.run([sys.executable, '-m', 'omnisapiens_nb.cli', *map(str, args)], check=True, stdout=subprocess.DEVNULL, env=os.environ | dict(OMP_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false'))
    return time.monotonic() - start

def atlas(out, name, seed):
    "The mini-Atlas of a seed, curated."
    if not (out/name).exists():
        sources = out/f'sources-{seed}'
        cli('mini', '--out', sources, '--seed', seed)
        cli('curate', *(f'--source={p.name}={p}' for p in sorted(sources.iterdir())), '--out', out/name)
    return out/name

def shuffled(described, out, seed=0):
    "The same Atlas with the descriptors of a dataset dealt out anew among its rows of a split."
    if out.exists(): return out
    partial, rng, dealt = out.with_name(out.name + '.partial'), random.Random(seed), {}
    for store in open_splits(described).values():
        columns, alike = store.columns('id', 'dataset', *FEATURES), defaultdict(list)
        for i, key in enumerate(columns['dataset']): alike[key, *(len(columns[f][i] or ()) for f in FEATURES)].append(i)
        for at in alike.values():
            for i, other in zip(at, rng.sample(at, len(at))): dealt[columns['id'][i]] = {f: columns[f][other] for f in FEATURES}
    shutil.rmtree(partial, ignore_errors=True)
    rewrite_atlas(described, partial, lambda row: row | dealt[row['id']], {})
    return partial.rename(out)

def stage(out, command, name, changes):
    "Run a recipe of the tiny model with some fields changed; seconds."
    recipe = yaml.safe_load((ROOT/'recipes'/'tiny'/f'{name}.yaml').read_text()) | {k: str(v) for k, v in changes.items() if k != 'seed'}
    if Path(recipe['out']).exists(): return None
    recipe['train']['seed'] = changes.get('seed', 0)
    file = out/f'{Path(recipe["out"]).parent.name}-{Path(recipe["out"]).name}.yaml'
    file.write_text(yaml.safe_dump(recipe))
    return cli(command, '--config', file, '--resume')

def one_seed(out, seed):
    "All stages and their answers for one seed; seconds of each stage, None where it was there already."
    run, atlases = out/f'seed-{seed}', dict(sft=out/'atlas', bam=out/'atlas', shuffled=out/'shuffled')
    run.mkdir(exist_ok=True)
    common = dict(atlas=out/'atlas', seed=seed)
    seconds = dict(classify=stage(out, 'sft', 'classify', common | dict(model=out/'base', out=run/'classify')),
                   lm_head=stage(out, 'sft', 'lm_head', common | dict(model=run/'classify', out=run/'sft')),
                   bam=stage(out, 'bam', 'bam', common | dict(model=run/'sft', out=run/'bam')))
    stage(out, 'bam', 'bam', common | dict(atlas=out/'shuffled', model=run/'sft', out=run/'shuffled'))
    for name, where in atlases.items():
        if not (run/f'{name}.jsonl').exists(): cli('predict', '--model', run/name, '--atlas', where, '--split', 'test', '--out', run/f'{name}.jsonl')
    return seconds

def answers(out, seeds):
    "What each model of each seed answered, as evaluation reads it: labels, or cosines of open answers."
    rows, embed, found = table_of(open_atlas(out/'atlas', 'test')), minilm(), []
    for seed in range(seeds):
        for model, name in MODELS.items():
            by_dataset = answers_by_dataset(rows, read_predictions(out/f'seed-{seed}'/f'{name}.jsonl', set(rows.id)), embed)
            for a in by_dataset.values():
                said = [round(float(s), 4) if a.task.endswith('_qa') else s for s in a.said]
                found.append(pd.DataFrame(dict(seed=seed, model=model, dataset=a.dataset, task=a.task, group=a.groups, truth=a.truth, said=said)))
    return pd.concat(found)

def main(out, seeds, workers='1'):
    out, seeds = Path(out), int(seeds)
    out.mkdir(parents=True, exist_ok=True)
    atlas(out, 'pretraining', 1)
    atlas(out, 'plain', 0)
    if not (out/'atlas').exists(): cli('describe', '--atlas', out/'plain', '--out', out/'atlas')
    shuffled(out/'atlas', out/'shuffled')
    if not (out/'start').exists(): cli('start', '--atlas', out/'pretraining', '--out', out/'start')
    base = stage(out, 'sft', 'warm_start', dict(atlas=out/'pretraining', model=out/'start', out=out/'base'))
    with ThreadPoolExecutor(int(workers)) as pool: seconds = list(pool.map(lambda seed: one_seed(out, seed), range(seeds)))
    facts = dict(command=f'python benchmarks/supervised.py OUT {seeds} {workers}', seconds=dict(base=base, seeds=seconds), cores=os.cpu_count(), machine=platform.machine(),
                 python=platform.python_version(), torch=version('torch'), package=version('omnisapiens_nb'))
    (ROOT/'nbs'/'results'/'supervised_run.json').write_text(json.dumps(facts, indent=1) + '\n', encoding='utf-8')
    answers(out, seeds).to_csv(ROOT/'nbs'/'results'/'supervised_answers.csv.gz', index=False, compression=dict(method='gzip', mtime=0))

if __name__ == '__main__': main(*sys.argv[1:])
