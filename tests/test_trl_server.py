"""A server of rollouts that dies or falls silent under `HarpoTrainer`, in TRL's server mode.

The server here speaks vLLM's protocol as far as TRL's client does, without vLLM and without a model: its answers
follow from the prompt alone. Weights go nowhere, since TRL hands them over by NCCL, which needs CUDA."""

import contextlib
import json
import os
import random
import signal
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trl_tiny as tiny
from trl.generation import vllm_client, vllm_generation
from urllib3.util.retry import Retry

from omnisapiens_nb.rl import trl_trainer
from omnisapiens_nb.rl.trl_trainer import HarpoTrainer

STEPS = 4
LOGP = -3.0  # Of every token
SILENCE = 20  # Seconds
MODES = dict(weight_transfer_config={}, model_config=dict(logprobs_mode='processed_logprobs'))
FOUND = {
    '/health': {},
    '/v1/models': dict(data=[dict(id='policy')]),
    '/server_info': dict(vllm_config=MODES),
    '/reset_prefix_cache': dict(success=True),
}


def written(prompt, number):
    "A choice of the server: words that follow from the prompt."
    rng = random.Random(f'{prompt} {number}')
    ids = [rng.randrange(3, len(tiny.WORDS)) for _ in range(4)]
    tokens = [f'token_id:{id}' for id in ids]
    logprobs = dict(tokens=tokens, token_logprobs=[LOGP] * 4, top_logprobs=[None] * 4)
    return dict(prompt_token_ids=prompt, token_ids=ids, logprobs=logprobs)


class Rollouts(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    written = 0  # Requests for rollouts so far

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer(FOUND[self.path.split('?')[0]])

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers.get('content-length', 0))) or '{}')
        if self.path != '/v1/completions':
            self._answer(FOUND[self.path])
            return
        Rollouts.written += 1
        if 0 < self.server.last <= Rollouts.written:
            self.server.end()
        choices = [written(prompt, number) for prompt in asked['prompt'] for number in range(asked['n'])]
        self._answer(dict(choices=choices))

    def _answer(self, found):
        data = json.dumps(found).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def fall_silent():
    time.sleep(SILENCE)


@contextlib.contextmanager
def served(last=0, end=die):
    "Port of a server in a process of its own, and how it ends while it writes its last rollouts."
    server = ThreadingHTTPServer(('127.0.0.1', 0), Rollouts)
    server.last = last
    server.end = end
    pid = os.fork()
    if not pid:
        try:
            server.serve_forever()
        finally:
            os._exit(0)
    server.server_close()
    try:
        yield server.server_port
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class Client(vllm_client.VLLMClient):
    def init_communicator(self, device=0):
        pass

    def update_named_params(self, metadata, named_params):
        pass


@pytest.fixture
def make(tmp_path, monkeypatch):
    for module in (vllm_client, vllm_generation):
        monkeypatch.setattr(module, 'is_vllm_available', lambda *_, **__: True)
    monkeypatch.setattr(vllm_generation, 'VLLMClient', Client)

    def made(port, folder='run'):
        args = tiny.settings(
            tmp_path / folder,
            max_steps=STEPS,
            save_strategy='steps',
            save_steps=1,
            use_vllm=True,
            vllm_mode='server',
            vllm_server_base_url=f'http://127.0.0.1:{port}',
            vllm_server_timeout=5,
        )
        return HarpoTrainer(tiny.policy(), tiny.early, args, tiny.rows(), processing_class=tiny.tokenizer())

    return made


@pytest.fixture
def waits(monkeypatch):
    "Seconds between the tries of a request, which are not waited for here."
    found = []
    monkeypatch.setattr(Retry, '_sleep_backoff', lambda retry: found.append(retry.get_backoff_time()))
    return found


def test_a_server_that_dies(make, waits):
    with served() as port:
        through = tiny.train(make(port, 'through'))
    with served(last=3) as port:
        trainer = make(port)
        with pytest.raises(ConnectionError, match=f'127.0.0.1:{port}.*resume'):
            tiny.train(trainer)
    assert trainer.state.global_step == 2
    assert sum(waits) <= 60  # As recipes/vllm/README.md says
    with served() as port:
        resumed = tiny.train(make(port), resume_from_checkpoint=True)
    assert resumed.state.global_step == STEPS
    assert tiny.same(resumed, through)
    assert not tiny.same(resumed, trainer)


def test_a_server_that_falls_silent(make, waits, monkeypatch):
    monkeypatch.setattr(trl_trainer, 'SERVER_PATIENCE', 0.5)
    with served(last=3, end=fall_silent) as port:
        trainer = make(port)
        begun = time.monotonic()
        with pytest.raises(ConnectionError, match=f'127.0.0.1:{port}.*resume'):
            tiny.train(trainer)
    assert trainer.state.global_step == 2
    assert time.monotonic() - begun < SILENCE
