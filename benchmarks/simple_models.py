"""Three models that understand nothing, on real annotation files, through predictions and `evaluate`:

python benchmarks/simple_models.py FOLDER OUT

FOLDER has one folder per source, laid out as ../shared/data. `majority_answer` gives the most frequent training answer;
`words` is logistic regression on a bag of words, and for open questions the answer of the most similar training
question; `longest` takes the longest option. OUT gets the Atlas, the predictions and the report; the scores, without
any text, go to nbs/results/simple_scores.csv."""

import json
import sys
import time
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
from omnisapiens_nb.runs.machine import facts

RESULTS = Path(__file__).parents[1] / 'nbs' / 'results'
SOURCES = ('meld', 'mustard', 'cremad', 'siq2')
COLUMNS = ('id', 'dataset', 'task', 'question', 'answer', 'options', 'transcript')


def table(atlas, split):
    return pd.DataFrame(open_atlas(atlas, split).columns(*COLUMNS))


def label_by_words(train, rows):
    "Logistic regression on a bag of words, every label of the same weight."
    regression = LogisticRegression(max_iter=500, class_weight='balanced')
    model = make_pipeline(CountVectorizer(min_df=2), regression)
    model.fit(train.transcript.fillna(''), train.answer)
    return model.predict(rows.transcript.fillna(''))


def answer_of_nearest_question(train, rows):
    vectors = TfidfVectorizer().fit(train.question)
    nearest = NearestNeighbors(n_neighbors=1, metric='cosine').fit(vectors.transform(train.question))
    found = nearest.kneighbors(vectors.transform(rows.question), return_distance=False)
    return train.answer.to_numpy()[found[:, 0]]


def words(train, rows):
    "Answers from a bag of words, dataset by dataset."
    said = pd.Series(index=rows.index, dtype=object)
    for key, part in rows.groupby('dataset'):
        is_open = part.task.iloc[0].endswith('_qa')
        answer = answer_of_nearest_question if is_open else label_by_words
        said[part.index] = answer(train[train.dataset == key], part)
    return [f'\\boxed{{{answer}}}' for answer in said]


def longest(rows):
    return [f'\\boxed{{{max(options, key=len)}}}' if len(options) else '' for options in rows.options]


def write_predictions(path, rows, responses):
    with path.open('w', encoding='utf-8') as file:
        for row, response in zip(rows.itertuples(), responses):
            line = dict(id=row.id, dataset=row.dataset, task=row.task, response=response, reference=row.answer)
            file.write(json.dumps(line, ensure_ascii=False) + '\n')


def main(folder, out, split='test'):
    begun = time.monotonic()
    folder, out = Path(folder), Path(out)
    curated = curate({name: folder / name for name in SOURCES}, out / 'atlas')
    train = table(out / 'atlas', 'train')
    rows = table(out / 'atlas', split)
    models = dict(majority_answer=majority_responses(train, rows), words=words(train, rows), longest=longest(rows))
    files = {name: out / f'{name}.jsonl' for name in models}
    for name, responses in models.items():
        write_predictions(files[name], rows, responses)
    evaluate(out / 'atlas', files, out / 'report', split)
    pd.read_csv(out / 'report' / 'scores.csv').to_csv(RESULTS / 'simple_scores.csv', index=False)
    seconds = time.monotonic() - begun
    run = facts('python benchmarks/simple_models.py FOLDER OUT', seconds, split=split, counts=curated.counts)
    (RESULTS / 'simple_run.json').write_text(json.dumps(run, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main(*sys.argv[1:])
