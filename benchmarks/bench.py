"""Where users wait: our way beside the plain one, both in one run.

python benchmarks/bench.py [PART …]

Each part measures one or more rows; without a name all parts run. Both sides take turns, and seconds are those of the
processor unless a part says otherwise, so that a busy machine does not decide. The table is printed, and merged by
`what` into nbs/results/bench.csv. To add a part, write a function that yields rows (`sides.beside` makes one) and name
it in PARTS; parts on data are in bench_data.py, and those on training in bench_training.py."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import bench_data
import bench_training
import numpy as np
import pandas as pd
from sides import beside, need

from omnisapiens_nb.runs.machine import facts

TABLE = Path(__file__).parents[1] / 'nbs' / 'results' / 'bench.csv'
SHOWN = ['what', 'ours', 'theirs', 'ratio', 'spread', 'goal', 'reached', 'our_memory', 'their_memory']
ROWS = 18_204  # As in the whole test split of the Atlas
RESAMPLES = 1000


def heavy_tailed(
    groups: int,  # How many
    rng: np.random.Generator,
) -> np.ndarray:  # Group of each of `ROWS` rows, in no order
    "Groups of which a few have most of the rows; each has one at least."
    weights = rng.pareto(1.2, groups)
    others = rng.choice(groups, size=ROWS - groups, p=weights / weights.sum())
    return rng.permutation(np.concatenate([np.arange(groups), others]))


def bootstraps(
    kind: str,  # `rows`, or how the groups are distributed
) -> Iterator[dict]:
    "The bootstrap of weighted F1 of seven classes, whose labels are numbers, which scikit-learn checks fastest."
    peer = need('sklearn', 'scikit-learn')
    from uncertainty import answers, loop

    from omnisapiens_nb.evaluation.metrics import weighted_f1
    from omnisapiens_nb.evaluation.uncertainty import bootstrap

    t, p, even = answers(ROWS, 8_000, 7, named=False, seed=0)
    groups = dict(rows=None, even=even, heavy=heavy_tailed(8_000, np.random.default_rng(0)))[kind]
    told = dict(rows='without groups', even='8,000 groups', heavy='8,000 groups with a heavy tail')[kind]
    rng = np.random.default_rng(1)
    share = 0.1
    yield beside(
        f'bootstrap of weighted F1, {told}',
        lambda: bootstrap(weighted_f1, t, p, groups, RESAMPLES),
        lambda: loop(t, p, groups, int(share * RESAMPLES), rng),
        f'{peer} in a loop',
        times=300 if kind == 'rows' else 200,
        share=share,
    )


def rows_bootstrap() -> Iterator[dict]:
    "Rows that stand alone."
    yield from bootstraps('rows')


def groups_bootstrap() -> Iterator[dict]:
    "Rows in groups of about two, and in groups of which a few have most of the rows."
    yield from bootstraps('even')
    yield from bootstraps('heavy')


def report() -> Iterator[dict]:
    """Three models on the Atlas's number of test rows. The plain way makes the tables of scores and differences alone;
    neither side embeds sentences, for which both would wait."""
    peer = need('sklearn', 'scikit-learn')
    from whole_report import letters, plain_tables, read, same_text, write_atlas

    from omnisapiens_nb.evaluation.evaluate import evaluate, gain_table, marked_table, score_models, task_table

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        atlas, files = write_atlas(folder)
        asked = read(atlas, files)  # The plain way is timed without it

        def tables():
            scored = score_models(atlas, files, grader=same_text)
            return marked_table(scored), gain_table(scored), task_table(scored)

        def whole():
            evaluate(atlas, files, folder / 'out', embed=letters, grader=same_text)

        def plain():
            plain_tables(asked, int(share * RESAMPLES))

        share = 0.01
        how = dict(peer=f'{peer} for each metric in a loop', times=20, within=10, share=share, turns=5, calls=1)
        size = '18,204 predictions of each of three models'
        yield beside(f'tables of scores and differences, {size}', tables, plain, **how)
        yield beside(f'whole report, with shortcuts and reasoning, {size}', whole, plain, **how)


PARTS = dict(
    rows_bootstrap=rows_bootstrap,
    groups_bootstrap=groups_bootstrap,
    report=report,
    **bench_data.PARTS,
    **bench_training.PARTS,
)


def merged(
    rows: pd.DataFrame,  # New ones
    path: Path = TABLE,  # Of earlier ones
) -> pd.DataFrame:  # Earlier ones in their places, the new ones of another name at the end
    "Rows of a table by their column `what`, of which the new ones count."
    if not path.exists():
        return rows
    earlier = pd.read_csv(path, dtype=str, keep_default_na=False)
    names = [*dict.fromkeys([*earlier.what, *rows.what])]
    kept = earlier[~earlier.what.isin(rows.what)]
    return pd.concat([kept, rows.astype(str)]).set_index('what').loc[names].reset_index().fillna('')


def main(
    *names: str,  # Parts; all where none is named
):
    "Measure parts, print their table and keep it."
    unknown = set(names) - set(PARTS)
    if unknown:
        sys.exit(f'no part {", ".join(sorted(unknown))}; choose among {", ".join(PARTS)}')
    for name in names or PARTS:
        start = time.monotonic()
        found = list(PARTS[name]())
        threads = int(os.environ.get('OMP_NUM_THREADS', os.cpu_count()))
        about = facts(f'python benchmarks/bench.py {name}', time.monotonic() - start, threads=threads)
        rows = pd.DataFrame([row | about for row in found])
        merged(rows).to_csv(TABLE, index=False)
        sys.stdout.write(rows[SHOWN].to_markdown(index=False) + '\n')


if __name__ == '__main__':
    main(*sys.argv[1:])
