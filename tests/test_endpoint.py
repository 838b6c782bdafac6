"Rows answered by a model behind HTTP: killed, refused, cut off; keys and health interviews stay where they are."

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.mini.daicwoz import write_daicwoz
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.evaluation import endpoints
from omnisapiens_nb.evaluation.endpoints import Patience
from omnisapiens_nb.runs import endpoint as module

KEY = 'sk-planted-7f3a'
LONG = 300  # Letters of a prompt that the server takes for too long


class Server:
    "A server on this machine; `behave` maps a request's body and its number to status, reply and reason of the end."

    def __init__(self):
        self.bodies, self.headers, self.lock = [], [], threading.Lock()
        self.at_once = self.most = 0
        self.behave = lambda body, n: (200, '\\boxed{sarcasm}', 'stop')

    def texts(self):
        return [self.text(body) for body in self.bodies]

    @staticmethod
    def text(body):
        content = body['messages'][-1]['content']
        return content if isinstance(content, str) else content[-1]['text']


@pytest.fixture
def server(monkeypatch):
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers['content-length'])))
            with state.lock:
                state.bodies.append(body)
                state.headers.append(dict(self.headers))
                state.at_once += 1
                state.most = max(state.most, state.at_once)
                number = len(state.bodies)
            status, said, end = state.behave(body, number)
            reply = dict(choices=[dict(message=dict(content=said), finish_reason=end)], usage=dict(completion_tokens=3))
            data = json.dumps(reply if status == 200 else dict(error=dict(message=said))).encode()
            with state.lock:
                state.at_once -= 1
            self.send_response(status)
            self.send_header('content-length', str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    class Quiet(ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 64

        def handle_error(self, *_):
            pass

    listening = Quiet(('127.0.0.1', 0), Handler)
    threading.Thread(target=partial(listening.serve_forever, 0.02), daemon=True).start()
    state.url = f'http://127.0.0.1:{listening.server_port}/v1'
    state.close = listening.server_close
    monkeypatch.setattr(module, 'Patience', lambda timeout, tries: Patience(2.0, 2, 0.01, give_up=4))
    monkeypatch.delenv('OPENAI_API_KEY', raising=False)
    yield state
    listening.shutdown()
    listening.server_close()


@pytest.fixture(scope='module')
def clinical(tmp_path_factory, mini_sources):
    "An Atlas of remarks and of health interviews."
    folder = tmp_path_factory.mktemp('clinical')
    write_daicwoz(folder / 'daicwoz')
    return curate(dict(daicwoz=folder / 'daicwoz', mustard=mini_sources / 'mustard'), folder / 'atlas').folder


@pytest.fixture
def ask(cli_here, server, mini_atlas, tmp_path, caplog):
    "Ask the server about an Atlas, into `out.jsonl`."

    def call(*args, atlas=mini_atlas, name='out', url=None):
        common = (
            '--model',
            'm',
            '--endpoint',
            url or server.url,
            '--atlas',
            atlas,
            '--out',
            tmp_path / f'{name}.jsonl',
        )
        caplog.clear()
        result = cli_here('predict', *common, *args)
        result.warned = caplog.text
        return result

    return call


def answers(tmp_path, name='out'):
    lines = (tmp_path / f'{name}.jsonl').read_text(encoding='utf-8').splitlines()
    return {line['id']: line['response'] for line in map(json.loads, lines)}


def one_sentence(result):
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 1 and lines[-1].startswith('error: ') and 'Traceback' not in result.stderr
    return lines[-1]


def test_media_go_along(server, ask, mini_atlas, tmp_path):
    server.behave = lambda body, n: (time.sleep(0.1), (200, 'x', 'stop'))[1]
    assert ask('--rows', 2).returncode == 0
    kinds = [
        tuple(part['type'] for part in content)
        for content in (body['messages'][-1]['content'] for body in server.bodies)
        if not isinstance(content, str)
    ]
    assert set(kinds) == {('image_url',) * 8 + ('input_audio', 'text'), ('input_audio', 'text')}
    ids = open_atlas(mini_atlas, 'test').columns('id')['id']
    found = list(answers(tmp_path))
    assert found == [row for row in ids if row in found]  # In the order of the Atlas
    assert server.most > 1 and 'authorization' not in {name.lower() for name in server.headers[0]}


def test_a_server_of_words_alone(server, ask, tmp_path):
    result = ask('--parts', 'text', '--max-new-tokens', 5)
    assert result.returncode == 0 and 'left out (cremad' in result.warned
    assert all(isinstance(body['messages'][-1]['content'], str) for body in server.bodies)
    assert {body['max_tokens'] for body in server.bodies} == {5}
    assert not any(row.startswith('cremad') for row in answers(tmp_path))


def test_what_newer_models_refuse(server, ask):
    def behave(body, n):
        refused = [name for name in ('max_tokens', 'temperature') if name in body]
        return (400, f"Unsupported parameter: '{refused[0]}'", '') if refused else (200, 'x', 'stop')

    server.behave = behave
    result = ask('--parts', 'text', '--at-once', 1, '--rows', 3)
    assert result.returncode == 0 and 'takes no max_tokens' in result.warned and 'own temperature' in result.warned
    assert len(server.bodies) == 2 + 6 and server.bodies[-1]['max_completion_tokens'] == 64
    said = one_sentence(ask('--parts', 'text', '--rows', 3, '--option', 'temperature=0', name='kept'))
    assert 'HTTP 400: the request was refused; check model and options; it says: {"error"' in said
    assert ask('--parts', 'text', '--rows', 3, '--option', 'temperature=null', name='none').returncode == 0
    assert 'temperature' not in server.bodies[-1]


def test_a_limit_that_is_too_large_is_not_remembered(server, ask):
    "Its refusal names the same option, and comes under its other name, too."
    server.behave = lambda body, n: (400, 'max_tokens is too large', '') if n in (1, 2) else (200, 'x', 'stop')
    assert 'max_tokens is too large' in one_sentence(ask('--parts', 'text', '--at-once', 1, '--rows', 2))
    assert [('max_tokens' in body) for body in server.bodies] == [True, False, True, True, True]


def test_dies_in_the_middle(server, ask, mini_atlas, tmp_path):
    "One sentence, no hang; the rest is asked when it is back, by the same command with another address."
    server.behave = lambda body, n: (200, str(len(server.text(body))), 'stop') if n <= 5 else (503, 'gone', '')
    start = time.monotonic()
    said = one_sentence(ask('--parts', 'text', '--at-once', 1))
    assert time.monotonic() - start < 10
    total = int(said.split(' of ')[1].split()[0])
    assert f'{total - 5} of {total} rows have no answer' in said and 'HTTP 503 (2 tries)' in said
    assert len((tmp_path / 'out.jsonl.run.partial' / 'answers.jsonl').read_text().splitlines()) == 5
    server.behave = lambda body, n: (200, str(len(server.text(body))), 'stop')
    server.bodies.clear()
    assert ask('--parts', 'text', url=server.url.replace('127.0.0.1', 'localhost')).returncode == 0
    assert len(server.bodies) == total - 5 and len(answers(tmp_path)) == total
    refused = ask('--parts', 'text', '--option', 'top_p=0.5', name='out')
    assert 'exists already' in one_sentence(refused)


def test_another_request_is_another_file(server, ask):
    server.behave = lambda body, n: (200, 'x', 'stop') if n <= 2 else (503, 'gone', '')
    one_sentence(ask('--parts', 'text', '--at-once', 1))
    assert 'begun with options.top_p none, now 0.5' in one_sentence(ask('--parts', 'text', '--option', 'top_p=0.5'))


def test_killed(server, ask, mini_atlas, tmp_path):
    server.behave = lambda body, n: (time.sleep(0.05), (200, server.text(body)[:9], 'stop'))[1]
    out = tmp_path / 'out.jsonl'
    command = [
        'predict',
        '--model',
        'm',
        '--endpoint',
        server.url,
        '--parts',
        'text',
        '--atlas',
        mini_atlas,
        '--out',
        out,
    ]
    command = [sys.executable, '-m', 'omnisapiens_nb.cli', *map(str, command), '--at-once', '2']
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while len(server.bodies) < 8:
        time.sleep(0.01)
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait(5)
    kept = (tmp_path / 'out.jsonl.run.partial' / 'answers.jsonl').read_text().splitlines()
    assert 5 <= len(kept) < 12
    time.sleep(0.2)
    server.bodies.clear()
    assert ask('--parts', 'text').returncode == 0
    assert len(server.bodies) == len(answers(tmp_path)) - len(kept)


def test_cut_off_and_empty(server, ask, tmp_path):
    server.behave = lambda body, n: (200, None, 'content_filter') if n == 1 else (200, '<think>so', 'length')
    result = ask('--parts', 'text', '--rows', 2, '--at-once', 1)
    assert result.returncode == 0 and '3 of 4 answers were cut off after 64 tokens' in result.warned
    assert sorted(answers(tmp_path).values()) == ['', *['<think>so'] * 3]


def test_refused_rows(server, ask, tmp_path):
    "A refusal of single rows does not stop the others, however many come one after the other."
    server.behave = lambda body, n: (200, 'x', 'stop') if n == 1 else (413, 'too long', '')
    said = one_sentence(ask('--parts', 'text', '--at-once', 1))
    assert 'not asked' not in said and 'add --refused-as-empty to leave the' in said
    assert ask('--parts', 'text', '--at-once', 1, '--refused-as-empty').returncode == 0
    assert list(answers(tmp_path).values()).count('x') == 1


def test_an_option_that_all_rows_fail_at_leaves_none_empty(server, ask, tmp_path):
    server.behave = lambda body, n: (422, 'no such option', '')
    assert 'no such option' in one_sentence(ask('--parts', 'text', '--refused-as-empty', '--option', 'speed=9'))
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_found_nowhere(server, ask, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv('MY_KEY', KEY)

    def behave(body, n):
        return [(200, f'<think>{KEY}</think>a', 'stop'), (413, f'no {KEY}', ''), (503, KEY, ''), (200, KEY, None)][
            n % 4
        ]

    server.behave = behave
    results = [ask('--parts', 'text', '--rows', 6, '--key-variable', 'MY_KEY', '--at-once', 1) for _ in range(2)]
    assert all(KEY in repr(headers) for headers in server.headers)
    server.behave = lambda body, n: (401, f'wrong {KEY}', '')
    results.append(ask('--parts', 'text', '--key-variable', 'MY_KEY', name='other'))
    assert 'the key was refused; check MY_KEY' in one_sentence(results[-1])
    seen = [result.stdout + result.stderr + result.warned for result in results] + [
        *capfd.readouterr(),
        repr(server.bodies),
    ]
    seen += [path.read_text() + path.name for path in tmp_path.rglob('*') if path.is_file()]
    assert '[key]' in ''.join(seen) and not any(KEY in text for text in seen)
    for address in (f'https://{KEY}@host/v1', f'https://host/v1?api-key={KEY}'):
        assert KEY not in one_sentence(ask(url=address, name='other'))


def test_nothing_is_left_behind(server, ask, tmp_path):
    server.behave = lambda body, n: (404, 'no such model', '')
    assert 'check model (m)' in one_sentence(ask())
    server.close()
    assert 'connection failed' in one_sentence(ask(name='nobody', url='http://127.0.0.1:9/v1'))
    assert list(tmp_path.iterdir()) == []


def test_health_interviews_stay_here(server, ask, monkeypatch, clinical, tmp_path):
    monkeypatch.setattr(endpoints, 'on_this_machine', lambda url: False)
    result = ask('--parts', 'text', atlas=clinical)
    assert result.returncode == 0 and 'rows of health interviews are not sent to another host (daicwoz' in result.warned
    assert server.bodies and not any('interview' in text for text in server.texts())
    allowed = ask('--parts', 'text', '--allow-clinical', atlas=clinical, name='all')
    assert allowed.returncode == 0 and any('interview' in text for text in server.texts())
    monkeypatch.undo()


def test_health_interviews_alone(server, ask, monkeypatch, tmp_path):
    monkeypatch.setattr(endpoints, 'on_this_machine', lambda url: False)
    write_daicwoz(tmp_path / 'daicwoz')
    atlas = curate(dict(daicwoz=tmp_path / 'daicwoz'), tmp_path / 'atlas').folder
    assert '--allow-clinical sends their words, sound and video' in one_sentence(ask(atlas=atlas))
    assert server.bodies == [] and not list(tmp_path.glob('out*'))


@pytest.mark.parametrize(
    'given', [('--parts', 'vllm'), ('--allow-clinical',), ('--option', 'top_p=1'), ('--at-once', 2), ('--timeout', 9)]
)
def test_options_of_an_endpoint_need_one(cli_here, mini_atlas, tmp_path, given):
    result = cli_here('predict', '--model', 'm', '--atlas', mini_atlas, '--out', tmp_path / 'x', *given)
    assert result.returncode == 2 and f'{given[0]} needs an endpoint' in ' '.join(result.stderr.split())


def test_no_proxy_to_this_machine(server, ask, monkeypatch):
    for name in ('HTTP_PROXY', 'http_proxy', 'ALL_PROXY'):
        monkeypatch.setitem(os.environ, name, 'http://127.0.0.1:9')
    assert ask('--parts', 'text', '--rows', 1).returncode == 0
