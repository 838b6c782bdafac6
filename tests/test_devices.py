"""Every stage as on a GPU, without one: tensors with a pretended device, mixing two of which raises; see pretended.py.
And the 7B, without its numbers, through both losses; see hollow.py.

With OMNISAPIENS_ALL=1 in both half precisions on both devices."""

import os

import pytest
import torch
import trl
from hollow import hollow
from pretended import WrongDevice, pretended
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import Qwen2_5OmniThinkerForConditionalGeneration, WhisperFeatureExtractor

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.mini.cremad import write_cremad
from omnisapiens_nb.atlas.mini.siq2 import write_siq2
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.evaluation.judge_local import _generate, local_judge
from omnisapiens_nb.rl.loop import Part, RLConfig, train_rl
from omnisapiens_nb.rl.trl_trainer import OmniHarpoTrainer, atlas_prompts
from omnisapiens_nb.runs.describe import describe_atlas
from omnisapiens_nb.runs.predict import load_judge
from omnisapiens_nb.runs.train import lora_config, start_model
from omnisapiens_nb.sft import generate, stages, warmstart
from omnisapiens_nb.sft.bam_training import (
    BAMConfig,
    adapted,
    describe_bam,
    freeze,
    load_bam,
    save_adapters,
    train_bam,
)
from omnisapiens_nb.sft.batches import Examples, choose_rows
from omnisapiens_nb.sft.fit import FitConfig, load_checkpoint
from omnisapiens_nb.sft.generate import predict, writing
from omnisapiens_nb.sft.heads import Heads
from omnisapiens_nb.sft.model import TOKEN_FIELDS, load_model
from omnisapiens_nb.sft.processor import OmniProcessor
from omnisapiens_nb.sft.sizes import GIB, parameters, thinker_config
from omnisapiens_nb.sft.stages import (
    ClassifyConfig,
    add_lora,
    answer_loss,
    load_stages,
    save_stages,
    staged,
    train_classifier,
    train_lm_head,
)
from omnisapiens_nb.sft.trl_trainer import trl_sft
from omnisapiens_nb.sft.warmstart import SFTConfig, warm_start

HALVES = {torch.bfloat16: dict(bf16=True), torch.float16: dict(fp16=True, bf16=False)}
CASES = [('cuda:0', torch.bfloat16), ('cuda:1', torch.float16)]
TRAINED = {torch.bfloat16: ['lora'], torch.float16: ['all']}  # By TRL
if os.environ.get('OMNISAPIENS_ALL') == '1':
    CASES += [('cuda:1', torch.bfloat16), ('cuda:0', torch.float16)]
    TRAINED = dict.fromkeys(TRAINED, ['lora', 'all'])
EXTRACTORS = dict(video='motion', audio='prosody')
LORA = dict(r=2, lora_alpha=4)
SHORT = dict(steps=1, batch=2)
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A described Atlas, a tiny model, and one with heads."
    folder = tmp_path_factory.mktemp('devices')
    write_cremad(folder / 'cremad', actors=2)
    write_siq2(folder / 'siq2', videos=(2, 1, 1))
    curate({name: folder / name for name in ('cremad', 'siq2')}, folder / 'plain')
    describe_atlas(folder / 'plain', folder / 'atlas')
    start_model(folder / 'atlas', folder / 'start')
    model, processor = load_model(folder / 'start', 'cpu')
    heads = Heads(model.config.get_text_config().hidden_size)
    save_stages(model, heads, processor, folder / 'staged')
    return folder


class Place:
    "A folder seen from a pretended device."

    def __init__(self, folder, device, dtype):
        self.folder, self.device, self.dtype = folder, device, dtype
        self.atlas = open_atlas(folder / 'atlas')
        rows = choose_rows(self.atlas)
        videos = [i for i in rows if self.atlas[i]['videos']]
        self.videos = videos[:2]
        self.voices = [i for i in rows if i not in videos][:2]

    def load(self, dtype=None):
        model, processor = load_model(self.folder / 'start', self.device, dtype=dtype or self.dtype)
        assert str(model.device) == self.device
        return model, processor

    def staged(self):
        return load_stages(self.folder / 'staged', self.device, dtype=self.dtype)

    def rows(self, processor, *kinds):
        return Examples(self.atlas, processor, [row for kind in kinds for row in getattr(self, kind)])

    def is_whole(self, *modules):
        "All weights lie on the device, and are numbers."
        for module in modules:
            for weight in module.parameters():
                assert str(weight.device) == self.device and weight.isfinite().all()


@pytest.fixture(params=CASES, ids=lambda case: f'{case[0]}-{str(case[1])[6:]}')
def place(folder, request, monkeypatch):
    for module in ('trl.kernels.chunked_logprob', 'trl.trainer.utils'):
        # A kernel of Triton needs a device that is there; TRL computes the same without
        monkeypatch.setattr(f'{module}._use_triton', lambda device: False, raising=False)
    with pretended(request.param[0]) as checked:
        yield Place(folder, *request.param)
    assert checked.seen > 100


def test_classify(place, tmp_path):
    model, processor = place.load()
    config = ClassifyConfig(**SHORT, accumulate=2, gradient_checkpointing=True)
    wrapped, heads, log = train_classifier(model, processor, place.rows(processor, 'voices'), config, tmp_path / 's.pt')
    place.is_whole(wrapped, heads)
    wrapped.base_model.model.config._name_or_path = str(place.folder / 'start')
    save_stages(wrapped, heads, processor, tmp_path / 'made')
    place.is_whole(*load_stages(tmp_path / 'made', place.device, dtype=place.dtype)[:2])


def test_lm_head(place, tmp_path):
    model, heads, processor = place.staged()
    before = model.lm_head.weight.detach().clone()
    train_lm_head(
        model, processor, place.rows(processor, 'videos'), FitConfig(**SHORT, save_every=1), tmp_path / 's.pt'
    )
    place.is_whole(model)
    assert not model.lm_head.weight.equal(before)


def test_bam(place, tmp_path):
    model, heads, processor = place.staged()
    for kind, rate in (('voices', 1e-3), ('videos', None)):
        examples = place.rows(processor, kind)
        frozen = freeze(model, processor, examples, EXTRACTORS)
        kinds = {kind: name for kind, name in EXTRACTORS.items() if any(kind in row.descriptors for row in frozen)}
        config = BAMConfig(**SHORT, heads_lr=rate)
        scaled, _ = train_bam(model, heads, examples.tasks[0], frozen, kinds, config)
        place.is_whole(scaled)
        save_adapters(scaled, kinds, frozen, tmp_path / f'{examples.datasets[0]}.safetensors')
    describe_bam(tmp_path, place.folder / 'staged', EXTRACTORS)
    model, heads, processor, adapters = load_bam(tmp_path, place.device, dtype=place.dtype)
    respond = adapted(model, heads, processor, adapters, 2)
    predict(respond, place.rows(processor, 'voices', 'videos'), tmp_path / 'said.jsonl')


def test_predict(place, tmp_path):
    model, heads, processor = place.staged()
    examples = place.rows(processor, 'voices', 'videos')
    for name, respond in dict(staged=staged(model, heads, processor, 2), plain=writing(model, processor, 2)).items():
        out = predict(respond, examples, tmp_path / f'{name}.jsonl')
        assert len(out.read_text().splitlines()) == len(examples)


def test_judge(place):
    judge = local_judge(place.folder / 'start', place.device, load=load_judge)
    asked = [dict(max_new_tokens=2, messages=[dict(role='user', content=words)]) for words in ('Is it?', 'Is it so?')]
    assert len(list(_generate(judge, asked))) == 2


def test_warm_start(place, tmp_path):
    model, processor = place.load()
    warm_start(model, processor, place.rows(processor, 'voices', 'videos'), SFTConfig(**SHORT), tmp_path / 's.pt')
    place.is_whole(model)


def lengths(completions, **columns):
    return [float(i) for i, _ in enumerate(completions)]


def test_loop(place, tmp_path, monkeypatch):
    monkeypatch.setattr('omnisapiens_nb.rl.loop.rewards_of', lambda texts, *args: [float(i) for i in range(len(texts))])
    config = RLConfig(steps=2, prompts=1, rollouts=2, mini_batch=1, epochs=2, max_new_tokens=2, save_every=1, beta=0.1)
    model, processor = place.load()
    before = model.lm_head.weight.detach().clone()
    rows = place.rows(processor, 'videos')
    one = config.model_copy(update=dict(steps=1))
    train_rl(model, processor, rows, one, tmp_path / 's.pt')
    assert {weight.dtype for weight in load_checkpoint(tmp_path / 's.pt')['model'].values()} == {torch.float32}
    train_rl(model, processor, rows, config, tmp_path / 's.pt')
    place.is_whole(model)
    assert not model.lm_head.weight.equal(before)


def trl_common(place, folder):
    common = dict(per_device_train_batch_size=2, max_steps=1, save_steps=1, report_to=[], disable_tqdm=True)
    return dict(output_dir=str(folder), **common, **HALVES[place.dtype])


def new_policy(place, trained):
    "A model and its processor, and LoRA's settings where an adapter is trained; otherwise weights in float32."
    if trained == 'all':
        return *place.load(torch.float32), None
    model, processor = place.load()
    return model, processor, lora_config(LORA, model)


def test_trl_sft(place, tmp_path):
    for trained in TRAINED[place.dtype]:
        model, processor, lora = new_policy(place, trained)
        args = trl.SFTConfig(**trl_common(place, tmp_path / trained))
        trainer = trl_sft(model, processor, place.rows(processor, 'videos'), args, lora)
        assert str(trainer.accelerator.device) == place.device
        place.is_whole(trainer.model)


def test_trl_rl(place, tmp_path):
    for trained in TRAINED[place.dtype]:
        model, processor, lora = new_policy(place, trained)
        more = dict(num_generations=2, max_completion_length=2, beta=0.1, num_iterations=2, steps_per_generation=1)
        args = trl.GRPOConfig(**trl_common(place, tmp_path / trained) | more | dict(max_steps=2, save_steps=2))
        data = atlas_prompts(place.rows(processor, 'videos', 'voices'))
        trainer = OmniHarpoTrainer(model, lengths, args, data, processor, peft_config=lora)
        trainer.train()
        place.is_whole(trainer.model)


@pytest.mark.parametrize('module', [stages, warmstart, generate])
def test_a_batch_that_stays_behind_is_found(folder, tmp_path, monkeypatch, module):
    monkeypatch.setattr(module, 'on_device', lambda batch, device: batch)
    with pretended():
        place = Place(folder, 'cuda:0', torch.bfloat16)
        model, heads, processor = place.staged()
        with pytest.raises(WrongDevice):
            if module is stages:
                stages.pooled_states(model, processor, list(place.rows(processor, 'voices')))
            elif module is warmstart:
                warm_start(model, processor, place.rows(processor, 'voices'), SFTConfig(**SHORT))
            else:
                predict(writing(model, processor, 2), place.rows(processor, 'videos'), tmp_path / 'said.jsonl')


def cuda(*shape, **kwargs):
    return torch.zeros(*shape, device='cuda:0', **kwargs)


REFUSED = dict(
    sum_of_two_devices=lambda: cuda(3) + torch.zeros(3),
    sum_of_two_cards=lambda: cuda(3) + torch.zeros(3, device='cuda:1'),
    number_of_a_card=lambda: torch.zeros(3) + cuda(3).sum(),
    stack=lambda: torch.stack([cuda(3).sum(), torch.tensor(1.0)]),
    index_on_a_card=lambda: torch.zeros(3)[cuda(1, dtype=torch.long)],
    mask_on_a_card=lambda: torch.zeros(3)[cuda(3) > 0],
    embedding=lambda: F.embedding(torch.tensor([0]), cuda(3, 2)),
    loss=lambda: F.cross_entropy(cuda(2, 3), torch.zeros(2).long()),
    matrix=lambda: cuda(2, 3) @ torch.zeros(3, 2),
    layer=lambda: nn.Linear(3, 2).to('cuda:0')(torch.zeros(1, 3)),
    numpy=lambda: cuda(3).numpy(),
    gradient=lambda: setattr(nn.Parameter(cuda(3)), 'grad', torch.zeros(3)),
)


@pytest.mark.parametrize('case', REFUSED)
def test_refused_as_by_cuda(case):
    with pretended(), pytest.raises((WrongDevice, TypeError)):
        REFUSED[case]()


def test_allowed_as_by_cuda():
    "A lone number and indices of the CPU, moves, and what is computed again in a backward pass."
    with pretended('cuda:1'):
        x = torch.zeros(3, device='cuda')
        made = (x + 1, x * torch.tensor(2.0), x[torch.zeros(2).long()], x.to(torch.bfloat16), torch.zeros_like(x))
        assert {str(y.device) for y in made} == {'cuda:1'}
        assert {str(y.device) for y in (x.cpu(), x.to(torch.zeros(1)), torch.arange(x.sum() + 3))} == {'cpu'}
        torch.zeros(3).copy_(x)
        layer = nn.Linear(3, 3).to('cuda')

        def again(y):
            return layer(y) + torch.ones(3, device=y.device)

        checkpoint(again, x.requires_grad_(), use_reentrant=False).sum().backward()
        assert str(layer.weight.grad.device) == str(x.grad.device) == 'cuda:1'
        torch.optim.AdamW(layer.parameters(), fused=True).step()
    assert str(torch.zeros(1).device) == 'cpu'


def test_the_scaler_of_float16_takes_no_bfloat16():
    "As CUDA has it (pytorch/pytorch#127176); the CPU does."
    with pretended():
        weight = nn.Parameter(cuda(3, dtype=torch.bfloat16))
        scaler = torch.amp.GradScaler('cuda')
        scaler.scale(weight.sum()).backward()
        with pytest.raises(NotImplementedError, match='BFloat16'):
            scaler.unscale_(torch.optim.SGD([weight], lr=1.0))


def make_shallow(config, layers=2):
    "All widths as they are, and few layers, since each is run by Python."
    text = config.text_config
    text.num_hidden_layers, text.layer_types = layers, text.layer_types[:layers]
    config.audio_config.encoder_layers = config.vision_config.depth = layers


@pytest.fixture(scope='module')
def large(folder):
    "The 7B with LoRA as on a GPU, without numbers; rows with video and sound; few layers but in `make test-all`."
    atlas = open_atlas(folder / 'atlas')
    _, tiny = load_model(folder / 'start', 'cpu')
    processor = OmniProcessor(tiny.tokenizer, WhisperFeatureExtractor(feature_size=128, chunk_length=30))
    config = thinker_config('Qwen/Qwen2.5-Omni-7B')
    for field, token in TOKEN_FIELDS.items():
        setattr(config, field, processor.tokenizer.convert_tokens_to_ids(token))
    if os.environ.get('OMNISAPIENS_ALL') != '1':
        make_shallow(config)
    with torch.device('meta'):
        net = Qwen2_5OmniThinkerForConditionalGeneration(config).to(torch.bfloat16)
        model = add_lora(net, ClassifyConfig(rank=32, dropout=0))
    model.gradient_checkpointing_enable(dict(use_reentrant=False))
    videos = [i for i in choose_rows(atlas) if atlas[i]['videos'] and atlas[i]['audios']]
    return model.train(), processor, list(Examples(atlas, processor, videos[:2]))


def reinforced(model, processor, examples):
    completions = [[7] * 256, [7] * 100]
    part = Part(examples, completions, torch.tensor([1.0, -1.0]), None, None)
    return part.loss(model, processor, RLConfig(), 2)


@pytest.mark.parametrize('loss_of', [answer_loss, reinforced])
def test_the_7b_without_numbers(large, loss_of):
    "Shapes, types and devices of a pass with sound and video, its gradient, and what memory it asks for."
    model, processor, examples = large
    adapters = [weight for weight in model.parameters() if weight.requires_grad]
    with hollow() as mode:
        for weight in (*model.parameters(), *model.buffers()):
            mode.sizes.add(weight)
        held = mode.sizes.now
        loss = loss_of(model, processor, examples)
        assert (loss.shape, loss.dtype, str(loss.device)) == ((), torch.float32, 'cuda:0')
        loss.backward()
        assert {(str(weight.grad.device), weight.grad.dtype) for weight in adapters} == {('cuda:0', torch.float32)}
    counted = parameters(model) * 2 + parameters(model, trained=True) * 2  # Bytes; adapters are in float32
    assert 0 <= held - counted < 16 << 20  # Tables of positions
    gradients = parameters(model, trained=True) * 4
    assert gradients < mode.sizes.peak - held < 8 * GIB
    for weight in adapters:
        weight.grad = None
