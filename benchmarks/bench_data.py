"""Parts of bench.py on data: curation, near-duplicates, reading rows, descriptors, installation, a command's start."""

import bisect
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import pandas as pd
from curation import SHARES, WORDS, utterance
from sides import Took, apart, beside, children, need

ROOT = Path(__file__).parents[1]
MELD_ROWS = 200_000  # Two of each line; a million would take minutes a side
REPEATED = 25  # One line in so many is an earlier one, in capitals
MELD_LABELS = dict(joy='positive', anger='negative', sadness='negative', surprise='positive', neutral='neutral')
MELD_KEYS = dict(meld_emotion='Emotion', meld_senti='Sentiment')
RECORDINGS = 2_800  # As in TESS
DESCRIBED = 700  # Of them
TEXTS = 50_000
CHANGED = 20  # One text in so many is another's with one word changed
BIG, SMALL = 2_000_000_000, 500_000_000  # Bytes of a store
BYTES = dict(video=250_000, audio=100_000)  # Of a medium
READ = 40  # Rows read at random
BATCH = 8
MEDIA = ('videos', 'audios')


def write_meld(
    folder: Path,  # Gets MELD's three tables
    rows: int,  # That they make
):
    "Dialogues without clips. Some lines are repeated, also across the splits."
    from omnisapiens_nb.atlas.mini.files import write_table
    from omnisapiens_nb.atlas.sources.meld import MELD_COLUMNS, MELD_FILES

    rng = random.Random(0)
    lines = [' '.join(rng.choices(WORDS, k=rng.randint(4, 14))) for _ in range(rows // 2)]
    for i in range(REPEATED, len(lines), REPEATED):
        lines[i] = rng.choice(lines[:i]).upper() + '!'
    at = 0
    for split, (file, _) in MELD_FILES.items():
        end = at + round(SHARES[split] * len(lines))
        write_table(folder / file, MELD_COLUMNS, [_utterance(n, line, rng) for n, line in enumerate(lines[at:end])])
        at = end


def _utterance(number, line, rng):
    "A row of MELD's tables with one of several labels."
    row = utterance(number, line, rng)
    row[3:5] = rng.choice(list(MELD_LABELS.items()))
    return row


def our_curation(source, out):
    from omnisapiens_nb.atlas.curate import Choices, curate

    return lambda: curate(dict(meld=source), out, Choices(near=False, drop=('text',))).splits


def plain_curation(source, out):
    "The same steps with pandas: column by column, and the rows of a split in one file."
    from omnisapiens_nb.atlas.datasets import DATASETS
    from omnisapiens_nb.atlas.sources.meld import MELD_FILES

    def work():
        tables = [pd.read_csv(source / file).assign(split=split) for split, (file, _) in MELD_FILES.items()]
        table = pd.concat(tables)
        table['words'] = _normalised(table.Utterance)
        rows = pd.concat([_rows_of(table, DATASETS[key], column) for key, column in MELD_KEYS.items()])
        rank = rows.split.map({split: number for number, split in enumerate(MELD_FILES)})
        last = rank.groupby(rows.words).transform('max')
        is_short = rows.words.str.count(' ') < 3  # Of three words or less, as ours
        kept = rows[is_short | (rank == last)].drop(columns='words')
        out.mkdir()
        for split, part in kept.groupby('split'):
            part.to_parquet(out / f'{split}.parquet', compression='zstd', index=False)
        return dict(kept.split.value_counts())

    return work


def _rows_of(table, dataset, column):
    "A row of the Atlas for each line, with a label of one of the columns."
    label = table[column].map(dataset.labels)
    dialogue = 'dia' + table.Dialogue_ID.astype(str)
    gap = '' if dataset.instruction.endswith('\n') else ' '
    options = dataset.separator.join(dataset.options)
    asked = f'The above is a transcript from {dataset.setting}. {dataset.question} {dataset.instruction}{gap}{options}'
    columns = dict(
        id=f'{dataset.key}/' + table.split + '/' + dialogue + '_utt' + table.Utterance_ID.astype(str),
        dataset=dataset.key,
        task=dataset.task,
        split=table.split,
        group='meld:' + table.split + ':' + dialogue,
        person='friends:' + table.Speaker.str.casefold(),
        start=_seconds(table.StartTime),
        end=_seconds(table.EndTime),
        problem=table.Utterance + '\n' + asked,
        answer=label,
        class_label=label,
        raw_label=table[column],
        transcript=table.Utterance,
        words=table.words,
    )
    return pd.DataFrame(columns).dropna(subset='answer')


def _seconds(clock):
    return pd.to_timedelta(clock.str.replace(',', '.')).dt.total_seconds()


def _normalised(text):
    folded = text.str.normalize('NFKC').str.casefold()
    return folded.str.replace(r'[^\w\s]', '', regex=True).str.split().str.join(' ')


def _new(folder):
    "An empty place, whatever was there before."
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def curated(folder):
    "What a curation wrote, in the order of ids."
    columns = ['id', 'split', 'group', 'person', 'start', 'end', 'problem', 'answer', 'transcript']
    parts = [pd.read_parquet(path, columns=columns) for path in sorted(folder.rglob('*.parquet'))]
    return pd.concat(parts).sort_values('id', ignore_index=True)


def curation() -> Iterator[dict]:
    """Text rows of MELD's tables, of which whole dialogues are in one split. Rows whose words are in a later split are
    dropped. Ours also writes reasons, checksums and what the splits share."""
    peer = need('pandas', 'pandas')
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_meld(folder / 'meld', MELD_ROWS)
        ours, theirs = folder / 'ours', folder / 'theirs'
        yield beside(
            f'curation of {MELD_ROWS:,} rows of text',
            lambda: apart(our_curation, folder / 'meld', _new(ours)),
            lambda: apart(plain_curation, folder / 'meld', _new(theirs)),
            f'{peer}, column by column',
            times=1,
            within=round(MELD_ROWS / 15_000, 1),  # 15,000 rows a second
            same=dict,
            turns=3,
            calls=1,
        )
        pd.testing.assert_frame_equal(curated(ours), curated(theirs), check_dtype=False)


def write_tess(
    folder: Path,  # Gets recordings in TESS's format
    count: int,
):
    "Two seconds of a tone in noise for each."
    from omnisapiens_nb.atlas.media import write_wav
    from omnisapiens_nb.atlas.mini.files import write_file

    rng = np.random.default_rng(0)
    rate = 24_414
    times = np.arange(2 * rate) / rate
    emotions = ('angry', 'disgust', 'fear', 'happy', 'neutral', 'ps', 'sad')
    for number in range(count):
        word, kind = divmod(number, 2 * len(emotions))
        place = f'{("OAF", "YAF")[kind % 2]}_{emotions[kind // 2]}'
        actress, emotion = place.split('_')
        tone = 0.2 * np.sin(2 * np.pi * rng.uniform(100, 300) * times)
        sound = tone + 0.01 * rng.standard_normal(len(times))
        write_file(folder / place / f'{actress}_{WORDS[word]}_{emotion}.wav', write_wav(sound, rate))


def _command(*words):
    "Run a command of ours."
    subprocess.run([sys.executable, '-m', 'omnisapiens_nb.cli', *map(str, words)], check=True, capture_output=True)


def _in_two(
    what: str,  # Name of the row
    command: list,  # Of ours, without `--out` and `--workers`
    folder: Path,  # Where it may write
) -> dict[str, object]:  # From `beside`
    "A command in two processes beside the same in one; the Atlas must be the same."
    from omnisapiens_nb.atlas.store import content_hash

    def run(workers):
        out = _new(folder / 'out')
        start = time.perf_counter()
        _command(*command, '--out', out, '--workers', workers)
        return Took(time.perf_counter() - start, result=content_hash(out))

    return beside(what, partial(run, 2), partial(run, 1), 'the same in one process', 1.8, same=str, turns=3, calls=1)


def media_curation() -> Iterator[dict]:
    "Recordings in TESS's format, by the clock on the wall."
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tess(folder / 'tess', RECORDINGS)
        command = ['curate', '--source', f'tess={folder / "tess"}']
        yield _in_two(f'curation of {RECORDINGS:,} recordings in two processes, wall clock', command, folder)


def descriptors() -> Iterator[dict]:
    "Prosody of recordings, by the clock on the wall."
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tess(folder / 'tess', DESCRIBED)
        _command('curate', '--source', f'tess={folder / "tess"}', '--out', folder / 'atlas')
        command = ['describe', '--atlas', folder / 'atlas', '--extractor', 'prosody']
        yield _in_two(f'prosody of {DESCRIBED:,} recordings in two processes, wall clock', command, folder)


def write_texts(count: int) -> tuple[list[str], set[tuple[int, int]]]:  # Different texts, and which were made of which
    "Texts of which some are another's with one word changed."
    rng = random.Random(0)
    texts = {}  # To its number
    pairs = set()
    while len(texts) < count:
        words = rng.choices(WORDS, k=rng.randint(4, 14))
        if texts and len(texts) % CHANGED == 0:
            before = len(texts) - 1
            words = next(reversed(texts)).split()
            words[rng.randrange(len(words))] = rng.choice(WORDS)
            pairs.add((before, len(texts)))
        texts.setdefault(' '.join(words), len(texts))
    return list(texts), pairs


def plain_near_pairs(texts):
    "As `near_pairs`, with the same shingles, hashes and bands."
    from datasketch import MinHash, MinHashLSH

    from omnisapiens_nb.atlas.near_text import BANDS, NEAR, ROWS, jaccard, shingles

    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    held = [shingles(text) for text in texts]
    encoded = ([shingle.encode() for shingle in each] for each in held)
    found = set()
    for j, signature in enumerate(MinHash.generator(encoded, num_perm=BANDS * ROWS)):
        found |= {(i, j) for i in index.query(signature) if jaccard(held[i], held[j]) >= NEAR}
        index.insert(j, signature)
    return found


def near() -> Iterator[dict]:
    "Pairs of texts with nearly the same words."
    peer = need('datasketch', 'datasketch')
    from omnisapiens_nb.atlas.near_text import NEAR, jaccard, near_pairs, shingles

    texts, made = write_texts(TEXTS)
    near = {(i, j) for i, j in made if jaccard(shingles(texts[i]), shingles(texts[j])) >= NEAR}
    row = beside(
        f'near-duplicates among {TEXTS:,} texts',
        lambda: near_pairs(texts),
        lambda: plain_near_pairs(texts),
        f'{peer}, MinHash LSH',
        times=2,
        turns=5,
        calls=1,
    )
    i, j, _ = near_pairs(texts)
    found = dict(ours=set(zip(i.tolist(), j.tolist())), theirs=plain_near_pairs(texts))
    recall = {side: f'{len(near & pairs) / len(near):.2%}' for side, pairs in found.items()}
    yield row | dict(note=f'of {len(near)} planted pairs, ours finds {recall["ours"]} and theirs {recall["theirs"]}')


def write_store(
    folder: Path,  # Gets an Atlas of one split
    size: int,  # Bytes of its media
    kinds: dict[str, tuple[str, ...]],  # Dataset to the media of its rows
):
    "As many rows of each dataset, one dataset after the other, as they are curated."
    from omnisapiens_nb.atlas.schema import Row
    from omnisapiens_nb.atlas.store import StoreWriter

    rng = np.random.default_rng(0)
    rows = size // sum(BYTES[medium] for media in kinds.values() for medium in media)
    writer = StoreWriter(folder)
    for dataset, media in kinds.items():
        for number in range(rows):
            words = ' '.join(rng.choice(WORDS, 12))
            row = Row(
                id=f'{dataset}/{number}',
                dataset=dataset,
                task='emotion_cls',
                split='train',
                group=f'{dataset}:{number // 10}',
                problem=f'{words}\nThe above is a transcript from a conversation. What does the speaker feel?',
                answer='happy',
                class_label='happy',
                transcript=words,
                modality_signature='_'.join(['text', *media]),
            )
            for medium in media:
                getattr(row, f'{medium}s').append(rng.bytes(BYTES[medium]))
            writer.add(row)
    writer.finish()


def compared(rows):
    "What of rows is compared."
    return [(row['id'], row['problem'], *(row[kind] for kind in MEDIA)) for row in rows]


def our_rows(folder, numbers):
    from omnisapiens_nb.atlas.store import open_atlas

    store = open_atlas(folder)
    return lambda: [store[number] for number in numbers]


def pandas_rows(folder, numbers):
    "A shard is read as a whole, and two are kept."
    import pyarrow.parquet as pq

    shards = sorted((folder / 'data').iterdir())
    starts = [0, *accumulate(pq.read_metadata(shard).num_rows for shard in shards)]
    load = lru_cache(2)(pd.read_parquet)

    def row(number):
        shard = bisect.bisect_right(starts, number) - 1
        found = load(shards[shard]).iloc[number - starts[shard]].to_dict()
        return found | {kind: list(found[kind]) for kind in MEDIA}  # An array would keep its whole shard

    return lambda: [row(number) for number in numbers]


def _opened(folder, cache, streaming=False):
    import datasets

    shards = [str(path) for path in sorted((folder / 'data').iterdir())]
    datasets.disable_progress_bars()
    return datasets.load_dataset('parquet', data_files=shards, split='train', cache_dir=str(cache), streaming=streaming)


def datasets_rows(folder, cache, numbers):
    rows = _opened(folder, cache)
    return lambda: [rows[number] for number in numbers]


def random_row() -> Iterator[dict]:
    "Rows at random of a store with clips. Before that, `datasets` has made a copy of it in Arrow, which is not timed."
    peer = need('datasets', 'datasets')
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, cache = folder / 'store', folder / 'cache'
        write_store(store, BIG, dict(meld_emotion=('video', 'audio')))
        count = len(_opened(store, cache))
        numbers = random.Random(0).choices(range(count), k=READ)
        ours = partial(apart, our_rows, store, numbers)
        by_shard = partial(apart, pandas_rows, store, numbers)
        from_copy = partial(apart, datasets_rows, store, cache, numbers)
        what = f'{READ} random rows of a store of {BIG / 1e9:g} GB'
        how = dict(same=compared, turns=5, calls=1)
        pandas = f'{need("pandas", "pandas")}, which reads whole shards and keeps two'
        yield beside(f'{what}, beside whole shards', ours, by_shard, pandas, times=20, memory=0.1, **how)
        yield beside(f'{what}, beside a copy in Arrow', ours, from_copy, peer, times=1, **how)


def our_epoch(folder):
    "Batches of one modality signature."
    from omnisapiens_nb.atlas.store import open_atlas
    from omnisapiens_nb.sft.batches import by_signature

    store = open_atlas(folder)
    signatures = store.columns('modality_signature')['modality_signature']
    for batch in by_signature(signatures, BATCH):
        yield [store[number] for number in batch]


def streamed_epoch(folder, cache):
    "Rows in the order of the files; a batch is given when it is full."
    waiting = defaultdict(list)
    for row in _opened(folder, cache, streaming=True):
        batch = waiting[row['modality_signature']]
        batch.append(row)
        if len(batch) == BATCH:
            yield waiting.pop(row['modality_signature'])
    yield from waiting.values()


def sizes(batches):
    "Rows by their ids, with the bytes of their media; each batch must be of one signature."
    found = {}
    for batch in batches:
        if len({row['modality_signature'] for row in batch}) > 1:
            raise ValueError('a batch has rows of two signatures')
        found |= {row['id']: [len(data) for kind in MEDIA for data in row[kind]] for row in batch}
    return found


def epoch() -> Iterator[dict]:
    "Every row of a store once."
    peer = need('datasets', 'datasets')
    kinds = dict(meld_emotion=('video', 'audio'), tess=('audio',), mmpsy_anxiety=())
    with tempfile.TemporaryDirectory() as name:
        store, cache = Path(name) / 'store', Path(name) / 'cache'
        write_store(store, SMALL, kinds)
        yield beside(
            f'an epoch over a store of {SMALL / 1e9:g} GB in batches of one signature',
            lambda: sizes(our_epoch(store)),
            lambda: sizes(streamed_epoch(store, cache)),
            f'{peer}, streaming',
            times=1,
            same=dict,
            calls=1,
        )


def start() -> Iterator[dict]:
    "What a command takes before it does anything, beside a Python that does nothing."
    command = Path(sys.executable).with_name('omnisapiens-nb')

    def run(*words):
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

    nothing = partial(run, sys.executable, '-c', 'pass')
    how = dict(peer='python -c pass', turns=15, calls=1, clock=children)
    yield beside('omnisapiens-nb --help', partial(run, command, '--help'), nothing, more=0.2, **how)
    bare = partial(run, sys.executable, '-c', 'import omnisapiens_nb')
    yield beside('import omnisapiens_nb', bare, nothing, more=0.05, **how)


def installation() -> Iterator[dict]:
    "What `make tutorial` does before the tutorial, and the first imports, beside pip's usual way."
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name) / 'clone'
        subprocess.run(['git', 'clone', '--quiet', ROOT, clone], check=True)
        written = {key: value for key, value in os.environ.items() if key != 'PYTHONDONTWRITEBYTECODE'}

        def install(*options):
            shutil.rmtree(clone / '.venv', ignore_errors=True)
            subprocess.run(['make', 'install', *options], cwd=clone, check=True, capture_output=True)
            command = [clone / '.venv' / 'bin' / 'python', '-c', 'import omnisapiens_nb.runs.tutorial']
            subprocess.run(command, cwd='/', env=written, check=True)

        yield beside(
            'installation, and the first imports',
            partial(install, 'PYTHONDONTWRITEBYTECODE='),
            partial(install, 'PYTHONDONTWRITEBYTECODE=1'),
            'pip, which compiles every module first',
            within=150,
            turns=3,
            calls=1,
            clock=children,
        )


PARTS = dict(
    curation=curation,
    media_curation=media_curation,
    near=near,
    random_row=random_row,
    epoch=epoch,
    descriptors=descriptors,
    start=start,
    installation=installation,
)
