"""TRL's own tests of its GRPO trainer, with that trainer and then with ours: trl_suite.py TRL [LOG]

TRL is a folder with TRL's source, whose `tests/test_grpo_trainer.py` is run; none of it is in this repository. The
models and tables that the tests name lie on a hub. Here they are small ones with random weights, made on the spot in
folders of the same names; a run takes one epoch on a CPU where a test does not say. Counted are the tests that the
stock trainer passes here; LOG says what became of each that ours does not pass (nbs/results/trl_suite.json by default).
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HUB = 'trl-internal-testing'
ROWS = 4  # Of each table; whole generations of the sizes that the tests use
SPECIAL = {
    151643: '<|endoftext|>',
    151644: '<|im_start|>',
    151645: '<|im_end|>',
    151652: '<|vision_start|>',
    151653: '<|vision_end|>',
    151655: '<|image_pad|>',
    151656: '<|video_pad|>',
    151657: '<tool_call>',
    151658: '</tool_call>',
}  # Of Qwen's tokenizer, by the numbers that the tests write down
PIECES = {
    314: ' {',
    330: ' "',
    397: '>\n',
    411: 'out',
    450: 'dec',
    497: '",',
    522: '</',
    606: 'name',
    788: '":',
    894: ' any',
    927: 'sh',
    944: "'t",
    1318: 'text',
    1414: ' know',
    1513: ' don',
    2765: ' won',
    293: ' b',
    4913: '{"',
    5212: ' {"',
    5392: ' tool',
    6023: 'hi',
    6659: 'call',
    7692: 'async',
    9520: 'step',
    11248: '}}\n',
    13477: 'rement',
    14172: 'tool',
    16252: ' increment',
    16370: 'arguments',
    17453: 'Done',
    22785: '_tool',
    35744: 'increment',
    64648: 'multiply',
    93054: '_multiply',
    95642: '"}}\n',
}
LARGE = sorted(number for number in PIECES | SPECIAL if number >= 1000)
SMALL = {number: 1000 + i for i, number in enumerate(LARGE)}  # So that a vocabulary is small; the copy is told
WORDS = 1088  # Of the vocabulary


def small(number):
    "The number of a token here."
    return SMALL.get(number, number)


TINY = dict(
    hidden_size=8,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    vocab_size=WORDS,
    max_position_embeddings=4096,
    pad_token_id=small(151643),
    eos_token_id=small(151645),
    bos_token_id=None,
)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, decoder_sparse_step=1)
MODELS = {
    'tiny-Qwen2ForCausalLM-2.5': ('Qwen2', 'qwen2_5', {}),
    'tiny-Qwen3ForCausalLM': ('Qwen3', 'qwen3', {}),
    'tiny-Qwen3MoeForCausalLM': ('Qwen3Moe', 'qwen3', EXPERTS | dict(output_router_logits=True)),
    'tiny-LlamaForCausalLM-3.2': ('Llama', 'qwen2_5', {}),
    'tiny-MistralForCausalLM-0.2': ('Mistral', 'qwen2_5', {}),
    'tiny-Cohere2ForCausalLM': ('Cohere2', 'qwen2_5', {}),
    'tiny-Gemma2ForCausalLM': ('Gemma2', 'qwen2_5', {}),
    'tiny-GptOssForCausalLM': ('GptOss', 'qwen2_5', dict(num_local_experts=4, num_experts_per_tok=2)),
    'tiny-Glm4MoeForCausalLM': ('Glm4Moe', 'qwen2_5', dict(n_routed_experts=4, moe_intermediate_size=32)),
}  # Name to architecture, TRL's chat template, and what its configuration has besides
REWARDS = {
    'tiny-Qwen2ForSequenceClassification-2.5': 'Qwen2',
    'tiny-Qwen3ForSequenceClassification': 'Qwen3',
    'tiny-LlamaForSequenceClassification-3.2': 'Llama',
}


def written_bytes(text):
    "Text as a byte-level vocabulary writes it."
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return ''.join(bytes_to_unicode()[byte] for byte in text.encode())


def tokenizer(template):
    "Bytes, and the few pieces that the tests write down, under Qwen's numbers."
    import trl
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    shown = bytes_to_unicode().values()
    pieces = {number: f'{chr(97 + number % 26)}{chr(97 + number // 26 % 26)}{number}' for number in range(WORDS)}
    pieces |= dict(enumerate(shown))
    pieces |= {small(number): written_bytes(piece) for number, piece in PIECES.items()}
    pieces |= {small(number): piece for number, piece in SPECIAL.items()}
    vocabulary = {piece: number for number, piece in pieces.items()}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_tokens([AddedToken(piece, special='call' not in piece, normalized=False) for piece in SPECIAL.values()])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token='<|endoftext|>', eos_token='<|im_end|>')
    folder = Path(trl.__file__).parent / 'chat_templates'
    fast.chat_template = (folder / f'{template}.jinja').read_text()
    return fast


def write_models(folder):
    "Models under the names that the tests know; a family that cannot be made so small is left out."
    import torch
    import transformers

    for name, (family, template, more) in MODELS.items():
        torch.manual_seed(0)
        config = getattr(transformers, f'{family}Config')(**TINY | more)
        model = getattr(transformers, f'{family}ForCausalLM')(config)
        model.generation_config.eos_token_id = TINY['eos_token_id']
        model.save_pretrained(folder / name)
        tokenizer(template).save_pretrained(folder / name)
    for name, family in REWARDS.items():
        torch.manual_seed(0)
        config = getattr(transformers, f'{family}Config')(**TINY, num_labels=1)
        model = getattr(transformers, f'{family}ForSequenceClassification')(config)
        model.save_pretrained(folder / name)
        tokenizer('qwen2_5').save_pretrained(folder / name)
    write_seeing(folder / 'tiny-Qwen2_5_VLForConditionalGeneration')


def write_seeing(folder):
    "A tiny Qwen2.5-VL with its processor for pictures; videos are never given to it."
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    ropes = dict(rope_type='default', mrope_section=[1, 1, 2], rope_theta=10000.0)
    text = TINY | dict(rope_parameters=ropes, hidden_size=32)
    vision = dict(depth=2, hidden_size=32, intermediate_size=32, num_heads=4, out_hidden_size=32, patch_size=14)
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision | dict(fullatt_block_indexes=[1], window_size=28),
        image_token_id=small(151655),
        video_token_id=small(151656),
        vision_start_token_id=small(151652),
        vision_end_token_id=small(151653),
    )
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer('qwen2_5_vl').save_pretrained(folder)
    pictures = dict(image_processor_type='Qwen2VLImageProcessorPil', min_pixels=784, max_pixels=3136, patch_size=14)
    (folder / 'preprocessor_config.json').write_text(json.dumps(pictures))


TABLE = """---
configs:
{configs}
---
"""


def write_tables(folder):
    "Tables under the names that the tests know, each row with a task."
    from datasets import Dataset
    from PIL import Image

    texts = [f'Say {word} in {count} words.' for word in ('yes', 'no') for count in range(ROWS // 2)]
    tasks = [text.split()[1] for text in texts]
    talks = [[dict(role='user', content=text)] for text in texts]
    plain = Dataset.from_dict(dict(prompt=texts, task=tasks))
    spoken = Dataset.from_dict(dict(prompt=talks, task=tasks))
    pictures = [Image.new('RGB', (28, 28), (9 * i, 0, 99)) for i in range(ROWS)]
    seen = Dataset.from_dict(dict(prompt=talks, task=tasks, image=pictures))
    several = Dataset.from_dict(dict(prompt=talks, task=tasks, images=[[picture, picture] for picture in pictures]))
    tables = {
        'zen': dict(standard_prompt_only=plain, conversational_prompt_only=spoken),
        'zen-image': dict(conversational_prompt_only=seen),
        'zen-multi-image': dict(conversational_prompt_only=several),
    }
    for name, parts in tables.items():
        (folder / name).mkdir(parents=True)
        configs = []
        for part, table in parts.items():
            configs += [f'- config_name: {part}', '  data_files:']
            for split in ('train', 'test'):
                table.to_parquet(folder / name / f'{part}-{split}.parquet')
                configs += [f'  - split: {split}', f'    path: {part}-{split}.parquet']
        (folder / name / 'README.md').write_text(TABLE.format(configs='\n'.join(configs)))


def ours():
    "Our trainer as the tests call it: they know of no tasks, so rows without one get one, and environments say theirs."
    from datasets import Dataset

    from omnisapiens_nb.rl.trl_trainer import HarpoTrainer

    def with_task(rows):
        if isinstance(rows, dict):
            return type(rows)({name: with_task(table) for name, table in rows.items()})
        if isinstance(rows, Dataset) and 'task' not in rows.column_names:
            return rows.add_column('task', ['untold'] * len(rows))
        return rows

    class GRPOTrainer(HarpoTrainer):
        def __init__(self, *args, train_dataset=None, eval_dataset=None, **kwargs):
            if kwargs.get('environment_factory') is not None:
                kwargs |= dict(task_of=lambda row, played: type(played).__name__)
            else:
                train_dataset, eval_dataset = with_task(train_dataset), with_task(eval_dataset)
            estimator = os.environ['TRL_SUITE_ESTIMATOR']
            more = dict(train_dataset=train_dataset, eval_dataset=eval_dataset, estimator=estimator)
            super().__init__(*args, **more, **kwargs)

    return GRPOTrainer


class Suite:
    "A plugin of pytest: puts our trainer in the place of TRL's where it is asked for, and writes down what came out."

    def __init__(self):
        self.found = {}

    def pytest_collection_modifyitems(self, session, config, items):
        import trl

        for module in {item.module for item in items}:
            module.GRPOConfig = partial(trl.GRPOConfig, num_train_epochs=1, use_cpu=True, bf16=False)
            if os.environ['TRL_SUITE_ESTIMATOR']:
                module.GRPOTrainer = ours()

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.split('::', 1)[1]
        if report.when == 'call' or report.outcome == 'skipped':
            told = report.longrepr.reprcrash.message.splitlines()[0] if report.failed else ''
            self.found[name] = [report.outcome, told]

    def pytest_sessionfinish(self):
        Path(os.environ['TRL_SUITE_OUT']).write_text(json.dumps(self.found))


def bridge():
    "A copy of another version may ask this TRL about packages that it does not know: they are not there."
    from trl import import_utils

    def missing(name):
        if name.startswith('is_') and name.endswith('_available'):
            return lambda: False
        raise AttributeError(name)

    import_utils.__getattr__ = missing


def copied(source, folder):
    "A copy of the tests in which large numbers of tokens are small."
    suite = folder / 'tests'
    suite.mkdir()
    for name in ('__init__.py', 'conftest.py', 'testing_utils.py', 'test_grpo_trainer.py'):
        text = (source / 'tests' / name).read_text(encoding='utf-8')
        smaller = re.sub(r'\b\d{4,6}\b', lambda found: str(small(int(found[0]))), text)
        (suite / name).write_text(smaller, encoding='utf-8')
    return suite


def run(suite, folder, estimator=''):
    "Each test's outcome and what it said, with an estimator of ours or with the stock trainer."
    folder = folder / (estimator or 'stock')
    folder.mkdir()
    (folder / HUB).symlink_to(folder.parent / HUB)
    out = folder / 'found.json'
    where = dict(PYTHONPATH=str(ROOT), TRL_SUITE_OUT=str(out), TRL_SUITE_ESTIMATOR=estimator)
    where |= dict(HF_DATASETS_CACHE=str(folder / 'cache'))
    quiet = dict(HF_HUB_OFFLINE='1', CI='1', OMP_NUM_THREADS='1', TRL_EXPERIMENTAL_SILENCE='1')
    asked = [sys.executable, __file__, '--pytest', suite / 'test_grpo_trainer.py']
    with (folder / 'log').open('w') as log:
        subprocess.run(asked, cwd=folder, env=os.environ | where | quiet, stdout=log, stderr=log)
    return json.loads(out.read_text())


def count(stock, by_estimator):
    "What ours passes of that which the stock trainer passes, what it refuses in one sentence, and what fails."
    passed = sorted(name for name, (outcome, _) in stock.items() if outcome == 'passed')
    estimators = {}
    for estimator, found in by_estimator.items():
        told = {name: found[name][1] for name in passed if found[name][0] != 'passed'}
        refused = {name: words for name, words in told.items() if 'the estimator decides' in words}
        rest = {name: words for name, words in told.items() if name not in refused}
        estimators[estimator] = dict(passes=len(passed) - len(told), refuses=refused, fails=rest)
    counted = dict(command='python tests/trl_suite.py TRL', trl=version('trl'), collected=len(stock))
    outcomes = {outcome: sum(found == outcome for found, _ in stock.values()) for outcome in ('failed', 'skipped')}
    return counted | dict(stock_passes=len(passed), stock=outcomes, estimators=estimators)


def main(source, log):
    folder = Path(tempfile.mkdtemp(prefix='trl_suite'))
    suite = copied(Path(source), folder)
    (folder / HUB).mkdir()
    write_models(folder / HUB)
    write_tables(folder / HUB)
    stock = run(suite, folder)
    counted = count(stock, {estimator: run(suite, folder, estimator) for estimator in ('harpo', 'grpo')})
    Path(log).write_text(json.dumps(counted, indent=1) + '\n')
    sys.stdout.write(f'{folder}\n{json.dumps(counted, indent=1)}\n')


if __name__ == '__main__':
    if sys.argv[1] == '--pytest':
        bridge()
        options = ['-v', '--tb=short', '-p', 'no:cacheprovider', '--import-mode=importlib', '-o', 'addopts=']
        sys.exit(pytest.main([*options, *sys.argv[2:]], plugins=[Suite()]))
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ROOT / 'nbs' / 'results' / 'trl_suite.json')
