"""What tests/engines/verl.sh makes before its runs of verl and looks at behind them.

python verl_run.py prepare FOLDER          a tiny policy and two files of rows
python verl_run.py check FOLDER            every claim about the runs, and the log of them"""

import json
import math
import os
import re
import sys
from copy import copy
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from omnisapiens_nb.rl.advantages import estimator_state
from omnisapiens_nb.rl.harpo import Harpo
from omnisapiens_nb.rl.verl_plugin import MEMORY_FILE, compute_score, uid_tasks, verl_row

ROOT = Path(__file__).parents[2]

TASKS = dict(emotion_cls='meld_emotion', humour_cls='urfunny', sarcasm_cls='mustard')
ANSWERS = ('yes', 'no')
ROWS = 24
# As verl.sh has them
STEPS, HALF, PROMPTS, N, LONGEST, BUFFER = 5, 3, 8, 4, 16, 12
END = '<|im_end|>'
WORDS = ['<think>', '</think>', 'because', *(f'\\boxed{{{answer}}}' for answer in ANSWERS)]


def tokenizer():
    "Bytes, and the words that an answer is made of."
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    spelling = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(characters)}, merges=[]))
    spelling.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    spelling.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=spelling, eos_token=END, pad_token='<|pad|>')
    made.add_tokens([AddedToken(word, normalized=False) for word in WORDS])
    made.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}: {% endif %}"
    )
    return made


def rows():
    "Questions of three tasks in turn, each with one of two answers."
    for i in range(ROWS):
        task = list(TASKS)[i % len(TASKS)]
        row = dict(
            problem=f'Q{i}?', dataset=TASKS[task], task=task, answer=ANSWERS[i // len(TASKS) % 2], id=f'{task}/{i}'
        )
        yield verl_row(row, i)


def policy(words):
    "A model of forty thousand weights that has learnt the form of answers, some of them without form, and to guess."
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    forms = ['<think>because</think>', '<think>becausebecausebecause</think>', '', 'because']
    texts = [
        f'{row["prompt"][0]["content"]}: {form}\\boxed{{{answer}}}{END}'
        for row in rows()
        for form in forms
        for answer in ANSWERS
    ]
    batch = words(texts, return_tensors='pt', padding=True)
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        chosen = torch.randperm(len(texts))[:48]
        loss = model(batch.input_ids[chosen], attention_mask=batch.attention_mask[chosen], labels=labels[chosen]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, float(loss.detach())


def prepare(folder):
    words = tokenizer()
    model, loss = policy(words)
    for part in (words, model):
        part.save_pretrained(folder / 'policy')
    for name in ('train', 'validation'):
        pq.write_table(pa.Table.from_pylist(list(rows())), folder / f'{name}.parquet')
    sys.stdout.write(f'policy: loss {loss:.2f}, {sum(p.numel() for p in model.parameters())} weights\n')


def read(path):
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def log_of(folder, name):
    "What a run wrote, without colours, each line once: with two nodes on one machine Ray forwards it twice."
    text = (folder / 'logs' / f'{name}.log').read_text(encoding='utf-8')
    lines = re.sub(r'\x1b\[\d+m', '', text).splitlines()
    return '\n'.join(dict.fromkeys(lines))


def penalty(length):
    "Of 0.75 at most, from the fourth token to the sixteenth; see recipes/verl/train.sh and verl.sh."
    return -0.75 * min(max(length - (LONGEST - BUFFER), 0) / BUFFER, 1)


def close(one, other):
    "Whether two states are the same but for the last digits of their numbers."
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return math.isclose(one, other, abs_tol=1e-6) if isinstance(one, float) else one == other


def by_task(memory):
    "A memory with its tasks ordered by name; it lists them in the order in which they first came from the servers."
    state = memory['state']
    return memory | dict(state=state | dict(tasks=sorted(state['tasks'])))


def forgotten(run):
    "How far a HARPO without memory would be from what the first step of a resumed run trained on."
    step = run.steps[0]
    expected = Harpo()(torch.tensor(step['rewards']), step['uids'], uid_tasks(step['uids'])).advantages
    return float((expected - torch.tensor(step['advantages'])).abs().max())


class Run:
    "What a run left behind: what the estimator was handed, and verl's own log of rollouts, from a step on."

    def __init__(self, folder, name, first):
        self.steps = read(folder / f'{name}.jsonl')
        self.rollouts = [read(folder / name / f'{first + i}.jsonl') for i in range(len(self.steps))]
        self.log = log_of(folder, name)

    def part(self, first, last=None):
        "The same run, of some steps."
        run = copy(self)
        run.steps, run.rollouts = self.steps[first:last], self.rollouts[first:last]
        return run

    def numbers(self, name):
        "A number of verl's log, by step."
        return [float(n) for n in re.findall(rf'- {re.escape(name)}:(?:np\.float64\()?([-\d.e]+)', self.log)]


def check_tasks(run, tasks):
    "Each id of a prompt carries the task that the training file gives to its question."
    for step, rollouts in zip(run.steps, run.rollouts, strict=True):
        question = {r['uid'].rpartition('_')[0].rpartition('_')[0]: r['input'].removesuffix(': ') for r in rollouts}
        assert set(step['uids']) == set(question) and len(question) == PROMPTS and len(rollouts) == PROMPTS * N
        assert uid_tasks(list(question)) == [tasks[q] for q in question.values()]


def tokens(words, text):
    "Of an answer, its end included; a byte that is no text stands in verl's log as one sign."
    return min(len(words(text.replace('\N{REPLACEMENT CHARACTER}', '?')).input_ids) + 1, LONGEST)


def check_rewards(run, words):
    "What the estimator got is what our reward says of the text, less the penalty of verl's manager."
    for step, rollouts in zip(run.steps, run.rollouts, strict=True):
        paid, expected = {}, {}
        for uid, reward in zip(step['uids'], step['rewards'], strict=True):
            paid.setdefault(uid, []).append(reward)
        for r in rollouts:
            uid = r['uid'].rpartition('_')[0].rpartition('_')[0]
            (task,) = uid_tasks([uid])
            own = compute_score('', r['output'], r['gts'], dict(task=task))['score']
            expected.setdefault(uid, []).append(own + penalty(tokens(words, r['output'])))
        for uid in expected:
            assert np.allclose(sorted(paid[uid]), sorted(expected[uid]), atol=1e-5), (uid, paid[uid], expected[uid])


def answers(run):
    "By step, what was written for each question, and the advantages that came of it."
    for step, rollouts in zip(run.steps, run.rollouts, strict=True):
        question = {r['uid'].rpartition('_')[0].rpartition('_')[0]: r['input'] for r in rollouts}
        written, advantages = {}, {}
        for r in rollouts:
            written.setdefault(r['input'], []).append(r['output'])
        for uid, advantage in zip(step['uids'], step['advantages'], strict=True):
            advantages.setdefault(question[uid], []).append(advantage)
        yield {q: sorted(w) for q, w in written.items()}, {q: sorted(a) for q, a in advantages.items()}


def difference(one, other):
    "Largest difference of advantages of two runs over the same steps, which wrote the same."
    largest = 0
    for (written, advantages), (again, others) in zip(answers(one), answers(other), strict=True):
        assert written == again
        largest = max(largest, *(abs(a - b) for q in advantages for a, b in zip(advantages[q], others[q], strict=True)))
    return largest


def check_harpo(run):
    "Advantages are those of HARPO by itself with its memory, over the steps; the memory that it then has."
    harpo, largest, memories = Harpo(), 0, []
    for step in run.steps:
        expected = harpo(torch.tensor(step['rewards']), step['uids'], uid_tasks(step['uids'])).advantages
        largest = max(largest, float((expected - torch.tensor(step['advantages'])).abs().max()))
        memories.append(json.loads(json.dumps(estimator_state(harpo, list(TASKS)))))
    assert largest < 1e-5
    return largest, memories


def shards(folder):
    "Weights in a checkpoint of verl's, in float32, by process and name."
    for path in sorted((folder / 'actor').glob('model_world_size_*.pt')):
        for name, weight in torch.load(path, map_location='cpu', weights_only=False).items():
            yield (path.name, name), weight._local_tensor


def merged(folder):
    "Weights of a model in Hugging Face's form, rounded as verl writes them there."
    for path in folder.glob('*.safetensors'):
        for name, weight in load_file(path).items():
            yield name, weight.bfloat16().float()


def apart(one, other):
    "Largest difference of weights with the same names."
    a, b = dict(one), dict(other)
    assert a.keys() == b.keys() and a
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def sentence(folder, name):
    "The last line of a run's log that names an error."
    errors = re.findall(r'^(?:\([^)]*\) )?(?:\w+\.)*\w+Error.*: .*$', log_of(folder, name), re.M)
    return errors[-1]


def check(folder):
    tasks = {row['prompt'][0]['content']: row['task'] for row in rows()}
    words = AutoTokenizer.from_pretrained(folder / 'policy')
    runs = [Run(folder, *named) for named in (('straight', 1), ('killed', 1), ('resumed', HALF + 1))]
    whole, killed, resumed = runs
    assert [len(run.steps) for run in runs] == [STEPS, HALF, STEPS - HALF]
    for run in runs:
        check_tasks(run, tasks)
        check_rewards(run, words)
    by_estimator, memories = check_harpo(whole)
    ended = [line.split() for line in (folder / 'seconds.txt').read_text(encoding='utf-8').splitlines()]
    status = {name: int(code) for name, code, _ in ended}
    assert status['straight'] == status['resumed'] == 0 and status['killed'] and status['misspelt']
    for step in (HALF, STEPS):
        for kept in ('whole', 'parts'):
            saved = json.loads((folder / kept / f'global_step_{step}' / MEMORY_FILE).read_text(encoding='utf-8'))
            assert close(by_task(saved), by_task(memories[step - 1])), (kept, step, saved, memories[step - 1])
    after = difference(whole.part(HALF), resumed)
    forgetful = forgotten(resumed)
    nodes = re.search(r"LLMServerManager: \['(\w+)/0', '(\w+)/1'\]", whole.log).groups()
    assert len(set(nodes)) == 2
    last = f'global_step_{STEPS}'
    log = dict(
        command='make verl-run',
        cores=os.cpu_count(),
        verl=version('verl'),
        ray=version('ray'),
        torch=version('torch'),
        transformers=version('transformers'),
        nodes=len(nodes),
        processes=len(list((folder / 'whole' / last / 'actor').glob('model_world_size_2_rank_*.pt'))),
        seconds={name: int(seconds) for name, _, seconds in ended},
        seconds_per_step=whole.numbers('timing_s/step'),
        rollouts=PROMPTS * N,
        rewards=[round(float(np.mean(step['rewards'])), 3) for step in whole.steps],
        tasks_checked=sum(len(set(step['uids'])) for run in runs for step in run.steps),
        advantages_from_harpo=by_estimator,
        server_from_trainer=max(whole.numbers('training/rollout_probs_diff_max')),
        policy_moved=apart(merged(folder / 'policy'), merged(folder / 'whole' / 'policy')),
        killed_from_whole=difference(whole.part(0, HALF), killed),
        resumed_from_whole=after,
        weights_resumed_from_whole=apart(*(shards(folder / kept / last) for kept in ('whole', 'parts'))),
        without_memory=forgetful,
        killed=sentence(folder, 'killed'),
        misspelt=sentence(folder, 'misspelt'),
    )
    assert after < 1e-4 < 1e-2 < forgetful and log['weights_resumed_from_whole'] < 1e-5 < 1e-3 < log['policy_moved']
    assert log['server_from_trainer'] < 1e-4
    text = json.dumps(log, indent=1)
    (ROOT / 'nbs' / 'results' / 'verl_run.json').write_text(text + '\n', encoding='utf-8')
    sys.stdout.write(text + '\n')


if __name__ == '__main__':
    command, folder = sys.argv[1], Path(sys.argv[2])
    dict(prepare=prepare, check=check)[command](folder)
