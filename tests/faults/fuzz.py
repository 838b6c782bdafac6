"""What reads strangers' text and bytes, fed by a fuzzer that follows the branches it reaches (atheris).

python tests/faults/fuzz.py TARGET [options of libFuzzer, such as -runs=100000 -timeout=10]

A target fails if it raises anything but a SourceError, takes longer than the timeout, or breaks what it promises."""

import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=['omnisapiens_nb.atlas', 'omnisapiens_nb.evaluation.answers']):
    from omnisapiens_nb.atlas.formats import FORMATS, format_of
    from omnisapiens_nb.atlas.reading import SourceError, read_csv, read_json, read_json_lines, read_text
    from omnisapiens_nb.evaluation.answers import match_label, parse_response, read_answer

FOLDER = Path(tempfile.mkdtemp())
LABELS = ('happy', 'sad', 'no emotion')
SEEDS = {
    'answers': [r'<think>She smiles.</think>\boxed{happy}', r'\boxed{a}\boxed{\text{b}}', '</think>[sad]', '<think>'],
    'tables': ['who,say\nAda,oh\nBen,"a\nb"\n', 'say,who\r\n"""",Ada\r\n', 'who,say\nAda,"oh\n'],
    'objects': ['{"a": {"b": [1, 2]}}', '{"a": 1, "a": 2}', '[1]', '{"a": "\\ud800"}'],
    'lines': ['{"who": 1, "say": 2}\n[]\n', '{"who": 1}\n\n{'],
    'formats': [
        b'RIFF\0\0\0\0WAVEfmt ',
        b'\0\0\0\x18ftypisom',
        b'ID3\x03\0\0\0\0\0\0',
        b'\x1aE\xdf\xa3',
        b'OggS',
        b'\xff\xfb\x90',
    ],
}


def fuzz_answers(data):
    text = data.decode('utf-8', 'replace')
    response = parse_response(text)
    assert response.answer == read_answer(text)
    assert match_label(response.answer or '', LABELS) in (None, *LABELS)


def written(data):
    (FOLDER / 'file').write_bytes(data)


def fuzz_tables(data):
    written(data)
    try:
        records = list(read_csv(FOLDER, 'file', ('who', 'say')))
    except SourceError:
        return
    assert [record.row for record in records] == list(range(1, len(records) + 1))
    assert all(record.fault or {'who', 'say'} <= record.data.keys() for record in records)


def fuzz_objects(data):
    written(data)
    try:
        entries = read_json(FOLDER, 'file')
    except SourceError:
        return
    text = read_text(FOLDER, 'file')
    assert dict(entries) == json.loads(text)


def fuzz_lines(data):
    written(data)
    try:
        records = list(read_json_lines(FOLDER, 'file', ('who',)))
    except SourceError:
        return
    assert all(record.fault or 'who' in record.data for record in records)


def fuzz_formats(data):
    found = format_of(data)
    assert found is None or found in FORMATS


TARGETS = dict(answers=fuzz_answers, tables=fuzz_tables, objects=fuzz_objects, lines=fuzz_lines, formats=fuzz_formats)


def main():
    name, *options = sys.argv[1:]
    corpus = FOLDER / 'corpus'
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[name]):
        content = seed if isinstance(seed, bytes) else seed.encode()
        (corpus / str(number)).write_bytes(content)
    atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[name])
    atheris.Fuzz()


if __name__ == '__main__':
    main()
