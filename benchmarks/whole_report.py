"""An Atlas of words with random labels, predictions of three models, and the tables of a report the plain way:
a loop over resamples that calls scikit-learn for each metric. `bench.py` times both."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score, multilabel_confusion_matrix

from omnisapiens_nb.atlas.datasets import DATASETS
from omnisapiens_nb.atlas.schema import Row
from omnisapiens_nb.atlas.store import StoreWriter, open_atlas
from omnisapiens_nb.evaluation.judge_verdicts import Verdict
from omnisapiens_nb.evaluation.scores import table_of

SIZES = dict(  # Rows of the test split by dataset key, 18,204 together
    meld_emotion=2610,
    meld_senti=2610,
    cremad=1488,
    mosei_emotion=1700,
    mosei_senti=4536,
    tess=560,
    chsimsv2=1034,
    urfunny=994,
    mmsd=138,
    siq2=900,
    intentqa=600,
    mimeqa=160,
    ptsd_in_the_wild=317,
    daicwoz=47,
    mmpsy_depression=255,
    mmpsy_anxiety=255,
)
SKILLS = dict(good=0.7, middling=0.6, poor=0.4)
WORDS = 'the voice is calm and then she looks away from him because of what was said before at home'.split()
TO_A_GROUP = 3  # Rows


def words(
    rng: np.random.Generator,
    count: int,
) -> str:
    "Some words."
    return ' '.join(rng.choice(WORDS, size=count))


def rows(
    split: str,  # Of the Atlas
    times: int,  # Rows, as a multiple of `SIZES`
    rng: np.random.Generator,
) -> Iterator[Row]:
    "Rows of words alone."
    for key, size in SIZES.items():
        dataset = DATASETS[key]
        for number in range(times * size):
            answer = str(rng.choice(dataset.options)) if dataset.options else words(rng, 4)
            yield Row(
                id=f'{key}/{split}/{number}',
                dataset=key,
                task=dataset.task,
                answer=answer,
                split=split,
                group=f'{key}/{split}/{number // TO_A_GROUP}',
                person=f'{key}:{number % 40}',
                question=dataset.question or 'What happens here?',
                options=list(dataset.options),
                choices=[] if dataset.options else [answer, 'something else'],
                transcript=words(rng, int(rng.integers(3, 30))),
            )


def write_atlas(
    folder: Path,  # Gets an Atlas and predictions
) -> tuple[Path, dict[str, Path]]:  # The Atlas, and each model's predictions
    "Four training rows for each test row, and three models that think before they answer."
    rng = np.random.default_rng(0)
    writer = StoreWriter(folder / 'atlas')
    asked = list(rows('test', 1, rng))
    for row in [*rows('train', 4, rng), *asked]:
        writer.add(row)
    writer.finish()
    files = {name: folder / f'{name}.jsonl' for name in SKILLS}
    for name, file in files.items():
        lines = [json.dumps(dict(id=row.id, response=response(row, SKILLS[name], rng))) for row in asked]
        file.write_text('\n'.join(lines), encoding='utf-8')
    return folder / 'atlas', files


def response(
    row: Row,  # To answer
    skill: float,  # How often the answer is known
    rng: np.random.Generator,
) -> str:  # A thought and a boxed answer
    "What a model says."
    answer = row.answer
    if rng.random() > skill:
        answer = str(rng.choice(row.options or ['something else']))
    thought = '. '.join(words(rng, 10) for _ in range(4))
    return f'<think>{thought}.</think>\\boxed{{{answer}}}'


def same_text(
    asked: pd.DataFrame,  # Rows with open answers
    responses: dict[str, str],  # Row id to response
) -> list[Verdict]:
    "A judge that takes no time: an answer is right if it is the reference."
    return [Verdict(responses[row.id].endswith(f'\\boxed{{{row.answer}}}')) for row in asked.itertuples()]


def letters(
    texts: list[str],  # To embed
) -> np.ndarray:  # One line per text
    "How often the letters occur: an embedding that takes no time, since both ways would wait for a real one."
    return np.array([[text.count(letter) for letter in 'abcdefghijklmnopqrstuvwxyz'] for text in texts], float)


def mean_of_rates(t: np.ndarray, p: np.ndarray) -> float:
    "Mean over classes of sensitivity and specificity."
    table = multilabel_confusion_matrix(t, p, labels=np.unique(t))
    sensitivity = table[:, 1, 1] / table[:, 1].sum(1)
    specificity = table[:, 0, 0] / table[:, 0].sum(1)
    return (sensitivity + specificity).mean() / 2


def weighted(t: np.ndarray, p: np.ndarray) -> float:
    "Weighted F1."
    return f1_score(t, p, labels=np.unique(t), average='weighted', zero_division=0)


def polar(t: np.ndarray, p: np.ndarray) -> float:
    "Weighted F1 of negative and positive."
    sign = {label: 'negative' if 'negative' in label else 'positive' for label in np.unique([*t, *p])}
    sign |= {'neutral': 'neutral'}
    kept = t != 'neutral'
    return weighted(*(np.array([sign[label] for label in of[kept]]) for of in (t, p)))


PLAIN = dict(emotion_cls=mean_of_rates, sentiment_cls=polar)


def metric_of(task: str) -> Callable:
    "The metric of a task, by scikit-learn."
    if not task.endswith('_cls'):
        return accuracy_score
    return PLAIN.get(task, weighted)


def read_answers(
    file: Path,  # Predictions
) -> pd.Series:  # By row id
    "Answers by regular expression."
    read = pd.read_json(file, lines=True).set_index('id').response
    return read.str.extract(r'\\boxed{(.*)}')[0]


def columns(
    asked: pd.DataFrame,  # Rows of one dataset
    answers: dict[str, pd.Series],  # Model to answers by row id
) -> dict[str, np.ndarray]:  # Model to its answers, two blind ones among them
    "Answers to one dataset."
    found = {name: of[asked.id].to_numpy(str) for name, of in answers.items()}
    frequent = asked.answer.mode()[0]
    return found | dict(majority=np.full(len(asked), frequent), constant=np.full(len(asked), frequent))


def read(
    atlas: Path,  # From `write_atlas`
    files: dict[str, Path],  # Predictions
) -> dict[str, tuple]:  # Dataset key → metric, references, model → answers, rows of each group
    "All that the plain way needs."
    answers = {name: read_answers(file) for name, file in files.items()}
    found = {}
    for key, asked in table_of(open_atlas(atlas, 'test')).groupby('dataset'):
        members = list(asked.reset_index(drop=True).groupby('group').indices.values())
        metric = metric_of(asked.task.iloc[0])
        found[key] = (metric, asked.answer.to_numpy(str), columns(asked, answers), members)
    return found


def plain_tables(
    asked: dict[str, tuple],  # From `read`
    resamples: int,
) -> pd.DataFrame:  # Dataset and model: score, interval, and difference to the best model and to a constant
    "Scores, paired differences and their intervals, one resample after the other."
    rng = np.random.default_rng(0)
    table = []
    for key, (metric, truth, said, members) in asked.items():
        drawn = []
        for _ in range(resamples):
            picked = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
            drawn.append([metric(truth[picked], of[picked]) for of in said.values()])
        drawn = pd.DataFrame(drawn, columns=list(said))
        value = pd.Series({name: metric(truth, of) for name, of in said.items()})
        for name in said:
            gains = [drawn[name] - drawn[other] for other in (value.idxmax(), 'constant')]
            bounds = [part.quantile([0.025, 0.975]).tolist() for part in (drawn[name], *gains)]
            table.append([key, name, value[name], *bounds])
    return pd.DataFrame(table, columns=['dataset', 'model', 'score', 'interval', 'behind', 'gain'])
