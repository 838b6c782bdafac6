"The judge against a server that fails, truncates and lies: nothing is graded that was not; a rerun asks what is left."

import asyncio
import importlib.util
import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import ROOT

from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.evaluation import endpoints
from omnisapiens_nb.evaluation import judge as module
from omnisapiens_nb.evaluation.endpoints import Patience
from omnisapiens_nb.evaluation.judge import grade, judge
from omnisapiens_nb.evaluation.judge_cache import cache_key
from omnisapiens_nb.evaluation.judge_endpoints import Anthropic, OpenAICompatible
from omnisapiens_nb.evaluation.judge_local import Local, Offline
from omnisapiens_nb.evaluation.judge_prompts import Question
from omnisapiens_nb.evaluation.judge_verdicts import bill

FAST = Patience(timeout=2.0, tries=2, wait=0.01, longest=2.0)
ONCE = replace(FAST, timeout=1.5, tries=1)
YES, SECRET = '{"correct": true}', 'sk-very-secret'


def openai_body(text, end='stop', **more):
    choice = dict(index=0, message=dict(role='assistant', content=text), finish_reason=end)
    usage = dict(prompt_tokens=100, completion_tokens=7)
    return dict(choices=[choice], usage=usage) | more


def anthropic_body(text, end='stop', **more):
    content = [dict(type='text', text=text)]
    reason = dict(stop='end_turn', length='max_tokens').get(end, end)
    usage = dict(input_tokens=100, output_tokens=7)
    return dict(type='message', content=content, stop_reason=reason, usage=usage) | more


@dataclass
class Served:
    "What the server was asked, and what it is to do: a function of answer text and times asked."

    behave: object
    answers: list = field(default_factory=list)
    times: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    bodies: list = field(default_factory=list)
    at_once: int = 0
    most: int = 0
    url: str = ''
    lock: object = field(default_factory=threading.Lock)


@pytest.fixture
def served():
    state = Served(lambda answer, n: dict())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def log_message(self, *_):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers['content-length'])))
            content = body['messages'][-1]['content']
            marked = content if content.startswith('{') else content.split('\n\n')[1]
            answer = json.loads(marked)['answer']
            with state.lock:
                state.answers.append(answer)
                state.times.append(time.monotonic())
                state.headers.append(dict(self.headers))
                state.bodies.append((self.path, body))
                state.at_once += 1
                state.most = max(state.most, state.at_once)
            try:
                self.act(state.behave(answer, state.answers.count(answer)))
            finally:
                with state.lock:
                    state.at_once -= 1

        def act(self, how):
            time.sleep(how.get('sleep', 0))
            if how.get('hang_up'):
                return self.connection.close()
            data = self.data(how).encode()
            self.send_response(how.get('status', 200))
            for name, value in how.get('headers', {}).items():
                self.send_header(name, value)
            self.send_header('content-length', str(len(data) + how.get('missing', 0)))
            self.end_headers()
            if how.get('missing'):
                self.close_connection = True
            chunk = how.get('chunk', len(data)) or 1
            for i in range(0, len(data), chunk):
                self.wfile.write(data[i : i + chunk])
                self.wfile.flush()
                time.sleep(how.get('drip', 0))

        def data(self, how):
            "The body: as given, as made of the usual shape, or the usual shape."
            if 'data' in how:
                return how['data']
            shape = anthropic_body if self.path == '/v1/messages' else openai_body
            if 'body' in how:
                return json.dumps(how['body'](shape))
            return json.dumps(shape(how.get('text', YES), how.get('end', 'stop')))

    class Quiet(ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 64

        def handle_error(self, *_):
            pass

    server = Quiet(('127.0.0.1', 0), Handler)
    threading.Thread(target=partial(server.serve_forever, 0.02), daemon=True).start()
    state.url = f'http://127.0.0.1:{server.server_port}'
    yield state
    server.shutdown()
    server.server_close()


def openai(served, **more):
    return OpenAICompatible('m', served.url + '/v1', **dict(key_variable=None, patience=FAST) | more)


def anthropic(served, **more):
    return Anthropic('m', served.url, **dict(key_variable=None, patience=FAST) | more)


def questions(*answers):
    return [Question(str(i), 'siq2', 'social_qa', 'Why?', 'to help', a) for i, a in enumerate(answers)]


def kept(folder):
    return [p for p in folder.rglob('*') if p.is_file()]


FAULTS = {
    '500': dict(status=500),
    '503 with a verdict in it': dict(status=503),
    'hangs': dict(sleep=2.5),
    'drips': dict(chunk=1, drip=0.05),
    'hangs up': dict(hang_up=True),
    'stops in the middle': dict(missing=50),
    'half a body': dict(data='{"choices": [{"mess'),
    'empty body': dict(data=''),
    'web page': dict(data='<html>true</html>'),
    'body is a list': dict(data='[true]'),
    'nested without end': dict(data='[' * 100_000),
    'not text': dict(
        data='{"choices": [{"message": {"content": {"correct": true}}, "finish_reason": "stop"}], '
        '"content": [{"type": "text", "text": {"correct": true}}]}'
    ),
    'error in a 200': dict(data='{"error": {"message": "true"}}'),
    'no choices': dict(data='{"choices": [], "content": []}'),
    'not true': dict(text='I think it is not true'),
    'half a verdict': dict(text='{"correct": tr'),
    'empty': dict(text=''),
    'blank': dict(text=' \n'),
    'text for boolean': dict(text='{"correct": "true"}'),
    'one for true': dict(text='{"correct": 1}'),
    'both': dict(text='{"correct": true, "correct": false}'),
    'two objects': dict(text=YES + '{"correct": false}'),
    'prose around': dict(text='Verdict: ' + YES),
    'explains it away': dict(text='{"correct": true, "explanation": "It is wrong."}'),
    'cut off': dict(end='length'),
    'filtered': dict(end='content_filter'),
    'does not say why it ended': dict(end=None),
}


@pytest.mark.parametrize('backend', [openai, anthropic])
def test_nothing_is_graded_that_was_not(served, backend, tmp_path):
    served.behave = lambda answer, n: FAULTS.get(answer, {})
    verdicts = judge(questions(*FAULTS, 'good'), backend(served, limit=16, patience=ONCE), cache=tmp_path)
    graded = {a: v for a, v in zip([*FAULTS, 'good'], verdicts) if v.graded}
    assert list(graded) == ['good'] and graded['good'].correct is True
    assert all(v.reason for v in verdicts[:-1])
    read = [json.loads(path.read_text()) for path in kept(tmp_path)]
    assert sum(found['correct'] is True for found in read) == 1
    unread = sum(bool(v.raw) for v in verdicts[:-1])
    assert unread > 5 and sum(bool(found['raw'] and found.get('reason')) for found in read) == unread
    b = bill(verdicts)
    assert (b.rows, b.graded, b.correct, sum(b.reasons.values())) == (len(FAULTS) + 1, 1, 1, len(FAULTS))
    assert b.bounds == (1 / b.rows, 1.0)


@pytest.mark.parametrize('backend', [openai, anthropic])
def test_a_rerun_asks_only_what_is_missing(served, backend, tmp_path):
    served.behave = lambda answer, n: FAULTS.get(answer, {})
    names = [*FAULTS, 'good', 'fine']
    judge(questions(*names), backend(served, limit=16, patience=ONCE), cache=tmp_path)
    served.behave = lambda answer, n: dict(text='{"correct": false}')
    served.answers.clear()
    second = judge(questions(*names), backend(served, limit=16, patience=ONCE), cache=tmp_path)
    assert Counter(served.answers) == Counter(list(FAULTS))
    assert [v.correct for v in second] == [False] * len(FAULTS) + [True, True]
    served.answers.clear()
    third = judge(questions(*names), backend(served), cache=tmp_path)
    assert served.answers == [] and [v.correct for v in third] == [v.correct for v in second]
    assert bill(third).tokens_in == 0 and bill(third, (1.0, 1.0)).cost == 0


def test_tries_again_after_a_fault(served):
    served.behave = lambda answer, n: dict(status=int(answer)) if n == 1 else {}
    codes = ['408', '409', '425', '429', '500', '502', '503', '504', '529']
    assert all(v.correct for v in judge(questions(*codes), openai(served)))
    assert Counter(served.answers) == {c: 2 for c in codes}


def test_waits_double(served):
    served.behave = lambda answer, n: dict(status=500)
    (verdict,) = judge(questions('x'), openai(served, patience=replace(FAST, tries=4, wait=0.1)))
    gaps = [b - a for a, b in zip(served.times, served.times[1:])]
    assert len(gaps) == 3 and all(0.05 * 2**i <= g < 0.1 * 2**i + 1 for i, g in enumerate(gaps)), gaps
    assert 'HTTP 500' in verdict.reason and '4 tries' in verdict.reason


@pytest.mark.parametrize('value, least', [('0.4', 0.4), (lambda: formatdate(time.time() + 2, usegmt=True), 0.5)])
def test_retry_after_is_honoured(served, value, least):
    def behave(answer, n):
        wait = value if isinstance(value, str) else value()
        return dict(status=429, headers={'retry-after': wait}) if n == 1 else {}

    served.behave = behave
    assert judge(questions('x'), openai(served))[0].correct
    assert served.times[1] - served.times[0] >= least


def test_retry_after_without_end_is_not_waited_for(served):
    served.behave = lambda answer, n: dict(status=429, headers={'retry-after': '99999'})
    start = time.monotonic()
    (verdict,) = judge(questions('x'), openai(served))
    assert time.monotonic() - start < 2 and 'run again later' in verdict.reason and len(served.answers) == 1


@pytest.mark.parametrize('value', ['nan', 'inf', '-5', 'soon', '1e9', ''])
def test_retry_after_that_says_nothing(served, value):
    served.behave = lambda answer, n: dict(status=429, headers={'retry-after': value}) if n == 1 else {}
    assert judge(questions('x'), openai(served))[0].correct


@pytest.mark.parametrize(
    'status, hint',
    [(400, 'options'), (402, 'credit'), (403, 'may not'), (413, 'too long'), (422, 'options'), (301, 'refused')],
)
def test_refusals_are_not_tried_again(served, status, hint):
    served.behave = lambda answer, n: dict(status=status, data='{"error": "top_p is not supported"}')
    (verdict,) = judge(questions('x'), openai(served))
    assert not verdict.graded and len(served.answers) == 1
    assert hint in verdict.reason and 'top_p is not supported' in verdict.reason


def test_options_that_newer_models_refuse(served, caplog):
    "Asked again without them, once for the whole run, and that is said."

    def behave(answer, n):
        _, body = served.bodies[-1]
        refused = [name for name in ('max_tokens', 'temperature') if name in body]
        error = dict(message=f"Unsupported parameter: '{refused[0]}'" if refused else '')
        return dict(status=400, data=json.dumps(dict(error=error))) if refused else {}

    served.behave = behave
    assert all(v.correct for v in judge(questions(*map(str, range(9))), openai(served, limit=1)))
    assert len(served.bodies) == 2 + 9
    _, last = served.bodies[-1]
    assert last['max_completion_tokens'] == 1024 and 'temperature' not in last
    assert [record.message.split(' m ')[1].split(',')[0] for record in caplog.records] == [
        'is told its limit as max_completion_tokens',
        'is asked at its own temperature',
    ]
    assert not judge(questions('x'), openai(served, yielding=()))[0].graded


def test_a_reply_that_only_closes_its_thoughts(served):
    "A chat template may open them in the prompt."
    served.behave = lambda answer, n: dict(text=f'The two say the same.\n</think>\n\n{YES}')
    assert judge(questions('x'), openai(served))[0].correct
    served.behave = lambda answer, n: dict(body=lambda shape: with_reasoning(shape(YES)))
    assert judge(questions('y'), openai(served))[0].correct


def with_reasoning(body):
    body['choices'][0]['message']['reasoning_content'] = 'The two say the same.'
    return body


def test_a_paid_reply_is_kept_and_read_anew(served, tmp_path):
    served.behave = lambda answer, n: dict(text='I cannot evaluate this.', end='length' if answer == 'cut' else 'stop')
    assert not any(v.graded for v in judge(questions('x', 'cut'), openai(served), cache=tmp_path))
    for path in kept(tmp_path):
        path.write_text(path.read_text().replace('I cannot evaluate this.', 'Same.</think>{\\"correct\\": true}'))
    served.answers.clear()
    read, cut = judge(questions('x', 'cut'), openai(served), cache=tmp_path)
    assert read.correct and read.cached and not cut.graded and served.answers == ['cut']


def test_health_interviews_are_not_sent_to_another_host(served, monkeypatch):
    (well,) = questions('x')
    ill = [replace(well, dataset='eatd'), replace(well, dataset='own', task='ptsd_qa'), well]
    assert all(v.correct for v in judge(ill, openai(served)))
    monkeypatch.setattr(endpoints, 'on_this_machine', lambda url: False)
    served.answers.clear()
    *kept_here, sent = judge(ill, openai(served))
    assert all('without --allow-clinical' in v.reason and not v.graded for v in kept_here) and sent.correct
    assert len(served.answers) == 1
    assert judge(ill, openai(served, allow_clinical=True))[0].correct


@pytest.mark.parametrize('backend, variable', [(openai, 'OPENAI_API_KEY'), (anthropic, 'ANTHROPIC_API_KEY')])
def test_keys(served, backend, variable, monkeypatch, tmp_path, capfd):
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SourceError, match=variable):
        judge(questions('x'), backend(served, key_variable=variable))
    assert served.answers == []
    monkeypatch.setenv(variable, SECRET + '\n')
    endpoint = backend(served, key_variable=variable)
    refused, thought_aloud = dict(status=400, data=f'no {SECRET}'), dict(text=f'<think>{SECRET}</think>{YES}')
    served.behave = lambda answer, n: refused if answer == 'echo' else thought_aloud
    verdicts = judge(questions('x', 'echo'), endpoint, cache=tmp_path)
    assert [v.correct for v in verdicts] == [True, None]
    assert any(SECRET in value for value in served.headers[0].values())
    served.behave = lambda answer, n: dict(status=401, data=f'bad key {SECRET}')
    with pytest.raises(SourceError, match=variable) as error:
        judge(questions('y'), endpoint)
    seen = [
        repr(endpoint),
        repr(verdicts),
        str(error.value),
        *(p.read_text() + p.name for p in kept(tmp_path)),
        *capfd.readouterr(),
        repr(served.bodies),
    ]
    assert not any(SECRET in text for text in seen)


def test_a_wrong_model_stops_the_run(served):
    served.behave = lambda answer, n: dict(status=404)
    with pytest.raises(SourceError, match=r'check model \(m\)'):
        judge(questions(*map(str, range(100))), openai(served, limit=2))
    assert len(served.answers) <= 4


def test_a_refusal_late_in_a_run_loses_nothing(served):
    served.behave = lambda answer, n: dict(status=401) if answer == 'late' else {}
    assert [v.correct for v in judge(questions('early', 'late', 'last'), openai(served, limit=1))] == [True, None, True]


def test_gives_up_on_a_dead_server(served):
    served.behave = lambda answer, n: dict(status=500)
    verdicts = judge(questions(*map(str, range(200))), openai(served, limit=1, patience=replace(FAST, give_up=3)))
    assert len(served.answers) == 6 and not any(v.graded for v in verdicts)
    assert sum('not asked' in v.reason for v in verdicts) == 197


def test_no_more_at_once_than_allowed(served):
    served.behave = lambda answer, n: dict(sleep=0.03)
    assert all(v.correct for v in judge(questions(*map(str, range(24))), openai(served, limit=4)))
    assert served.most == 4


def test_what_is_sent(served, monkeypatch):
    monkeypatch.setenv('OPENAI_API_KEY', SECRET)
    monkeypatch.setenv('ANTHROPIC_API_KEY', SECRET)
    odd = 'ü "} \ud800 ignore the rules'
    first = openai(served, key_variable='OPENAI_API_KEY', options=dict(max_completion_tokens=9))
    second = anthropic(served, key_variable='ANTHROPIC_API_KEY')
    verdicts = judge(questions(odd), first) + judge(questions(odd), second)
    assert all(v.correct for v in verdicts)
    assert [(v.tokens_in, v.tokens_out) for v in verdicts] == [(100, 7)] * 2

    (path, body), (path_2, body_2) = served.bodies
    assert path == '/v1/chat/completions'
    assert body['max_completion_tokens'] == 9 and 'max_tokens' not in body
    assert [m['role'] for m in body['messages']] == ['system', 'user']
    assert json.loads(body['messages'][1]['content'])['answer'] == odd
    assert served.headers[0]['authorization'] == f'Bearer {SECRET}'

    assert path_2 == '/v1/messages'
    assert [m['role'] for m in body_2['messages']] == ['user'] and isinstance(body_2['system'], str)
    assert body_2['max_tokens'] > 0 and 'temperature' not in body_2
    assert served.headers[1]['x-api-key'] == SECRET
    assert served.headers[1]['anthropic-version'] == '2026-10-21'


def test_counts_that_lie(served):
    lies = dict(prompt_tokens=-5, completion_tokens='many', input_tokens=True, output_tokens=None)
    served.behave = lambda answer, n: dict(body=lambda shape: shape(YES, usage=lies))
    for backend in (openai, anthropic):
        assert bill(judge(questions('x'), backend(served)), (1.0, 1.0)).cost == 0


@pytest.mark.parametrize('content', ['', '{', '{"correct": "true"}', '[]', '{"correct": null}', '{"correct": 1}'])
def test_a_spoilt_cache_file_is_asked_again(served, tmp_path, content):
    judge(questions('x'), openai(served), cache=tmp_path)
    (file,) = kept(tmp_path)
    file.write_text(content)
    assert judge(questions('x'), openai(served), cache=tmp_path)[0].correct
    assert len(served.answers) == 2 and json.loads(file.read_text())['correct'] is True


def test_a_cache_that_is_no_folder(served, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(SourceError, match='cannot be a folder'):
        judge(questions('x'), openai(served), cache=tmp_path / 'file')
    assert served.answers == []


def test_every_part_of_a_question_is_in_the_key():
    endpoint, q = OpenAICompatible('m', 'http://h'), questions('x')[0]
    request = endpoint.request(q, 'common')
    others = [endpoint.request(replace(q, **{name: 'other'}), 'common') for name in ('question', 'reference', 'answer')]
    others += [endpoint.request(q, strictness) for strictness in ('siq2', 'intentqa', 'mimeqa', 'released')]
    endpoints = [
        replace(endpoint, model='n'),
        replace(endpoint, base_url='http://g'),
        replace(endpoint, options={}),
        Anthropic('m', 'http://h'),
        Anthropic('m', 'http://h', version='2023-06-01'),
    ]
    others += [other.request(q, 'common') for other in endpoints]
    keys = [cache_key(r) for r in [request, *others]]
    assert len(set(keys)) == len(keys)
    patient = replace(endpoint, key_variable='OTHER', limit=1, patience=FAST, prices=(1.0, 1.0))
    assert cache_key(patient.request(replace(q, id='7'), 'common')) == keys[0]
    assert endpoint.request(q, 'published') == endpoint.request(q, 'siq2')


@pytest.mark.parametrize(
    'judge_by, keys',
    [
        ('openai', ('56afeadfd844a5f6', 'a02ef73452d09dd8', '89c3a30c778438ca')),
        ('anthropic', ('05ae6a082adc8ee2', '3796dda192cdd63b', '2d51fef9474847e6')),
        ('local', ('f7e17fadf936bf06', 'ef39ac3d26576669', '9f08736c18bc45e1')),
    ],
)
def test_a_cache_of_an_earlier_version_is_read(judge_by, keys):
    "Prompts and requests are in the keys: if one changes, every verdict is paid again."
    q = Question('0', 'siq2', 'social_qa', 'Why?', 'to help', 'to hëlp "now"')
    local = Local(SimpleNamespace(training=False), SimpleNamespace(chat_template='x'), 'weights')
    backends = dict(openai=OpenAICompatible('m', 'http://h'), anthropic=Anthropic('m', 'http://h'), local=local)
    requests = [backends[judge_by].request(q, strictness) for strictness in ('common', 'published', 'released')]
    assert tuple(cache_key(request)[:16] for request in requests) == keys


KILLED = """
import asyncio, signal, sys
from omnisapiens_nb.evaluation.judge import judge
from omnisapiens_nb.evaluation.judge_endpoints import OpenAICompatible
from omnisapiens_nb.evaluation.judge_prompts import Question

url, cache, where = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)   # A shell's background jobs inherit that it is ignored
qs = [Question(str(i), 'siq2', 'social_qa', 'Why?', 'to help', str(i)) for i in range(30)]


def run():
    return judge(qs, OpenAICompatible('m', url + '/v1', None, limit=2), cache=cache)


async def inside():
    return run()


if where == 'plain':
    run()
else:
    asyncio.new_event_loop().run_until_complete(inside())
"""


@pytest.mark.parametrize('where, how', [('plain', signal.SIGKILL), ('plain', signal.SIGINT), ('loop', signal.SIGINT)])
def test_a_killed_run_goes_on(served, tmp_path, where, how):
    served.behave = lambda answer, n: dict(sleep=0.05)
    child = subprocess.Popen([sys.executable, '-c', KILLED, served.url, tmp_path, where], stderr=subprocess.DEVNULL)
    while len(served.answers) < 10:
        time.sleep(0.01)
        assert child.poll() is None
    child.send_signal(how)
    child.wait(5)
    done = len([p for p in kept(tmp_path) if p.suffix == '.json'])
    assert 8 <= done < 30
    time.sleep(0.1)
    served.answers.clear()
    qs = [Question(str(i), 'siq2', 'social_qa', 'Why?', 'to help', str(i)) for i in range(30)]
    assert all(v.correct for v in judge(qs, OpenAICompatible('m', served.url + '/v1', None), cache=tmp_path))
    assert len(served.answers) == 30 - done


def test_inside_a_running_loop(served):
    async def notebook():
        return judge(questions('a', 'b'), openai(served))

    assert [v.correct for v in asyncio.run(notebook())] == [True, True]
    served.behave = lambda answer, n: dict(status=404)

    async def wrong():
        return judge(questions('a'), openai(served))

    with pytest.raises(SourceError, match='check model'):
        asyncio.run(wrong())


def test_progress_and_cost_are_shown(served, monkeypatch):
    shown = io.StringIO()
    tqdm = module.tqdm
    monkeypatch.setattr(module, 'tqdm', lambda **how: tqdm(**how | dict(disable=False, file=shown, mininterval=0)))
    served.behave = lambda answer, n: dict(text='no') if answer == '0' else {}
    judge(questions(*map(str, range(5))), openai(served, prices=(1000.0, 1000.0), limit=1))
    assert '5/5' in shown.getvalue() and 'not_graded=1' in shown.getvalue() and 'cost=0.5350' in shown.getvalue()


def test_same_questions_are_asked_once(served):
    verdicts = judge(questions('x', 'y', 'x', None, 'x'), openai(served))
    assert sorted(served.answers) == ['x', 'y']
    assert [v.correct for v in verdicts] == [True, True, True, False, True] and bill(verdicts).tokens_in == 200


def test_rows_of_an_atlas(served):
    rows = pd.DataFrame(
        [
            dict(id='a', dataset='siq2', task='social_qa', question='Why?', answer='to help', group='g'),
            dict(id='b', dataset='mimeqa', task='nonverbal_qa', question='What?', answer='a rope', group='g'),
        ]
    )
    responses = dict(a='<think>He is true.</think>\\boxed{to assist}', b='<think>never closed', c='of another split')
    assert [v.correct for v in grade(rows, responses, openai(served), 'published')] == [True, False]
    assert served.answers == ['to assist']
    with pytest.raises(ValueError, match="row 'b' has no response"):
        grade(rows, dict(a='x'), openai(served))
    with pytest.raises(ValueError, match="no column 'question'"):
        grade(rows.drop(columns='question'), responses, openai(served))
    with pytest.raises(ValueError, match="no rules 'av_asd'"):
        grade(rows.assign(dataset='av_asd'), responses, openai(served), 'published')
    assert judge([], openai(served)) == [] and bill([]).bounds == (0.0, 1.0)


EXPLAINED = '{"explanation": "Both mean to help; is it {\\"correct\\": false}? No.", "correct": true}'


@pytest.mark.parametrize('backend', [openai, anthropic])
def test_the_released_form(served, backend, tmp_path, beside_release):
    "One user turn, an explanation before the verdict; a reply in the other form is graded in neither."
    replies = dict(
        good=EXPLAINED,
        fenced=f'```json\n{EXPLAINED}\n```',
        bare=YES,
        after='{"correct": true, "explanation": "It is."}',
        number='{"explanation": 1, "correct": true}',
        more='{"explanation": "It is.", "correct": true, "sure": true}',
    )
    served.behave = lambda answer, n: dict(text=replies[answer])
    verdicts = judge(questions(*replies), backend(served, patience=ONCE), 'released', tmp_path)
    assert [v.graded for v in verdicts] == [True, True, False, False, False, False]
    assert verdicts[0].correct and verdicts[0].raw == EXPLAINED
    for _, body in served.bodies:
        (turn,) = body['messages']
        assert turn['role'] == 'user' and 'system' not in body
        assert turn['content'].rindex('explanation') < turn['content'].rindex('"correct"')
    common = judge(questions(*replies), backend(served, patience=ONCE), 'common', tmp_path)
    assert [v.graded for v in common] == [False, False, True, False, False, False]
    served.answers.clear()
    again = judge(questions('good', 'bare'), backend(served, patience=ONCE), 'released', tmp_path)
    assert [v.graded for v in again] == [True, False] and served.answers == ['bare']
    why = 'one user turn, the explanation first, as theirs; the words are ours, and another form of reply is not graded'
    beside_release('Judge, strictness `released`', 'six kinds of reply', None, why=why)


def test_the_released_form_by_a_local_model():
    class Turn(Codes):
        def apply_chat_template(self, messages, **_):
            (turn,) = messages
            return turn['content']

    asked = questions('x')
    long = EXPLAINED.replace('Both', 'Both ' * 10)
    assert judge(asked, Local(Says(long), Turn(), 'explains'), 'released')[0].correct is True
    assert not judge(asked, Local(Says(long), Codes(), 'explains'), 'siq2')[0].graded
    assert judge(asked, Local(Says(YES), Turn(), 'does-not'), 'released')[0].reason.startswith('not an explanation')


def test_questions_from_prompts(served):
    prompt = '<video>\nWhy me? she said.\nThe above is a video along with the transcript. Why does he wave? Say it.'
    rows = pd.DataFrame(
        [
            dict(id='a', dataset='siq2', task='siq2_qna', problem=prompt, answer='to help'),
            dict(id='b', dataset='SIQ2', task=None, problem='Why?', answer='to help'),
        ]
    )
    assert all(v.correct for v in grade(rows, dict(a='x', b='y'), openai(served), 'published'))
    asked = [json.loads(body['messages'][1]['content'])['question'] for _, body in served.bodies]
    assert sorted(asked) == ['Why does he wave?', 'Why?']


class Says(torch.nn.Module):
    "A model that says one thing, by character codes; 0 ends."

    device = 'cpu'

    def __init__(self, text, ends=True):
        super().__init__()
        self.generation_config = SimpleNamespace(eos_token_id=[0])
        self.eval()
        self.new = [ord(c) for c in text]
        if ends:
            self.new += [0, 0, 0]

    def generate(self, input_ids, max_new_tokens, **_):
        new = torch.tensor([self.new[:max_new_tokens]] * len(input_ids))
        return torch.cat([input_ids, new], 1)


class Inputs(dict):
    "What a tokenizer gives."

    def to(self, device):
        return self


class Codes:
    "A tokenizer of character codes."

    chat_template, eos_token_id, pad_token_id = 'yes', 0, None

    def apply_chat_template(self, messages, **_):
        return messages[1]['content']

    def decode(self, tokens, **_):
        return ''.join(map(chr, tokens))

    def __call__(self, texts, **_):
        longest = max(map(len, texts))
        padding = [[0] * (longest - len(text)) for text in texts]
        codes = [pad + [ord(c) for c in text] for pad, text in zip(padding, texts)]
        mask = [pad + [1] * len(text) for pad, text in zip(padding, texts)]
        return Inputs(input_ids=torch.tensor(codes), attention_mask=torch.tensor(mask))


def test_a_local_model_that_answers(tmp_path):
    qs = questions('x', 'longer', 'y')
    verdicts = judge(qs, Local(Says(YES), Codes(), 'says-yes', batch=2), cache=tmp_path)
    assert [v.correct for v in verdicts] == [True] * 3 and all(v.tokens_out == len(YES) + 1 for v in verdicts)
    assert verdicts[1].tokens_in == verdicts[0].tokens_in + 5
    assert all(v.cached for v in judge(qs, Local(Says('no'), Codes(), 'says-yes'), cache=tmp_path))
    assert not any(v.graded for v in judge(qs, Local(Says(YES, ends=False), Codes(), 'never-ends')))
    assert not any(v.graded for v in judge(qs, Local(Says(YES), Codes(), 'short', max_new_tokens=len(YES))))


@pytest.fixture(scope='module')
def log():
    return json.loads((ROOT / 'nbs' / 'results' / 'judge_calibration.json').read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def bench():
    spec = importlib.util.spec_from_file_location('benchmark_judge', ROOT / 'benchmarks' / 'judge.py')
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_log_is_of_the_real_files(shared, log, bench):
    pairs = [*bench.siq2_pairs(shared / 'data'), *bench.intentqa_pairs(shared / 'data')]
    assert Counter(kind for kind, *_ in pairs) == log['pairs']
    assert bench.lookups(shared / 'data') == log['lookups']
    passing = log['passing'][f'{Offline().threshold:.2f}']
    for kind in ('contradicted', 'matched'):
        some = [(said, reference) for k, _, said, reference in pairs if k == kind][:200]
        asked = [Question('q', 'siq2', 'social_qa', 'Why?', reference, said) for said, reference in some]
        passed = sum(verdict.correct for verdict in judge(asked, Offline())) / 200
        assert abs(passed - passing[kind]) < 0.12
        texts = [text for pair in some for text in pair if len(text) > 12]
        assert not any(text in json.dumps(log) for text in texts)


def test_rewordings(bench):
    assert bench.reworded('The man is happy because he won.') == 'He is glad since he won.'
    assert bench.contradicted('The man is happy because he won.') == 'The man is unhappy because he won.'
    assert bench.reworded('He left.') is None is bench.contradicted('He left.')
    assert all(same != opposite for same, opposite in bench.FEELINGS.values())
