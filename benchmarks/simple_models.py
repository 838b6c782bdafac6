"""Three models that understand nothing, on real annotation files, through predictions and `evaluate`: python
benchmarks/simple_models.py FOLDER OUT

FOLDER has one folder per source, laid out as ../shared/data. `majority` gives the most frequent training
answer; `words` is logistic regression on a bag of words, and for open questions the answer of the most similar
training question; `longest` takes the longest option. OUT gets the Atlas, the predictions and the report; the
scores, without any text, go to nbs/results/simple_scores.csv.
"""

import json
import sys
from pathlib import Path

import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.evaluation.evaluate import evaluate
from omnisapiens_nb.evaluation.scores import majority_responses

RESULTS = Path(__file__).parents[1] / 'nbs' / 'results'
SOURCES = ('meld', 'mustard', 'cremad', 'siq2')
COLUMNS = ('id', 'dataset', 'task', 'question', 'answer', 'options', 'transcript')


def table(atlas, split):
    return pd.DataFrame(open_atlas(atlas, split).columns(*COLUMNS))


def words(train, rows):
    "Answers from a bag of words, dataset by dataset."
    said = pd.Series(index=rows.index, dtype=object)
    for key, part in rows.groupby('dataset'):
        seen, text = train[train.dataset == key], 'question' if part.task.iloc[0].endswith('_qa') else 'transcript'
        if text == 'transcript':
            model = make_pipeline(
                CountVectorizer(min_df=2), LogisticRegression(max_iter=500, class_weight='balanced')
            ).fit(seen[text].fillna(''), seen.answer)
            said[part.index] = model.predict(part[text].fillna(''))
        else:
            vectors = TfidfVectorizer().fit(seen[text])
            near = NearestNeighbors(n_neighbors=1, metric='cosine').fit(vectors.transform(seen[text]))
            said[part.index] = seen.answer.to_numpy()[
                near.kneighbors(vectors.transform(part[text]), return_distance=False)[:, 0]
            ]
    return [f'\\boxed{{{a}}}' for a in said]


def longest(rows):
    return [f'\\boxed{{{max(o, key=len)}}}' if len(o) else '' for o in rows.options]


def main(folder, out, split='test'):
    folder, out = Path(folder), Path(out)
    result = curate({name: folder / name for name in SOURCES}, out / 'atlas')
    train, split = table(out / 'atlas', 'train'), split
    rows = table(out / 'atlas', split)
    models = dict(majority_answer=majority_responses(train, rows), words=words(train, rows), longest=longest(rows))
    for name, said in models.items():
        lines = (
            json.dumps(dict(id=i, dataset=d, task=t, response=r, reference=a), ensure_ascii=False)
            for i, d, t, r, a in zip(rows.id, rows.dataset, rows.task, said, rows.answer)
        )
        (out / f'{name}.jsonl').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    evaluate(out / 'atlas', {name: out / f'{name}.jsonl' for name in models}, out / 'report', split)
    pd.read_csv(out / 'report' / 'scores.csv').to_csv(RESULTS / 'simple_scores.csv', index=False)
    (RESULTS / 'simple_run.json').write_text(
        json.dumps(
            dict(command='python benchmarks/simple_models.py FOLDER OUT', split=split, counts=result.counts), indent=1
        )
        + '\n',
        encoding='utf-8',
    )


if __name__ == '__main__':
    main(*sys.argv[1:])
