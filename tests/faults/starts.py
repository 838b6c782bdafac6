"""Commands that are started, stopped and started again: their inputs, a quick way to start them, and what they leave.

Heavy imports are done once, and each start is a fork; where there is no fork, a start is a process of its own."""

import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

os.environ.update(OMP_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false', HF_HUB_OFFLINE='1')
os.environ.update(HF_HUB_DISABLE_PROGRESS_BARS='1')  # As the commands have it before they import transformers
FEW = dict(steps=6, batch=8, save_every=2)
SECONDS = 300  # That a start may take; then it is ended, which is a fault
UNBEGUN, CRASHED = 98, 99  # Exit statuses: a signal came before the command had begun; a fault that is no sentence
HAS_FORK = hasattr(os, 'fork')
MODULES = (
    'cli atlas.curate atlas.exchange runs.describe runs.transcribe runs.fine_tune runs.reinforce runs.predict '
    'runs.tutorial evaluation.evaluate studies.methods studies.descriptors studies.transfer'
).split()  # Imported before the first fork


class Command(NamedTuple):
    "A command of the command line, and what it writes."

    words: tuple[str, ...]  # IN and OUT stand for the folders of inputs and of outputs
    out: str  # File or folder in OUT
    last: str = ''  # File in `out` that is there when all is; empty if `out` itself gets its name at the end
    before: str = ''  # Folder of IN that lies at `out` beforehand


def of_recipe(name):
    return ('--config', f'OUT/{name}.yaml', '--resume')


CREMAD = ('--source', 'cremad=IN/sources/cremad')
MUSTARD = ('--source', 'mustard=IN/sources/mustard')
SIQ2 = ('--source', 'siq2=IN/sources/siq2')
SCORED = ('evaluate', '--atlas', 'IN/atlas', '--out', 'OUT/report', '--predictions')
FEWEST = ('--sft-steps', '4', '--rl-steps', '2', '--test-rows', '2', '--workers', '1')
JUDGED = ('--judge', 'openai', '--judge-model', 'm', '--judge-url')
COMMANDS = {
    'curate': Command(('curate', *CREMAD, *MUSTARD, *SIQ2, '--out', 'OUT/atlas'), 'atlas'),
    'describe': Command(('describe', '--atlas', 'IN/plain', '--out', 'OUT/atlas'), 'atlas'),
    'convert': Command(('convert', 'IN/atlas', '--out', 'OUT/lines'), 'lines'),
    'convert, a tar': Command(('convert', 'IN/atlas', '--tar', '--out', 'OUT/lines'), 'lines'),
    'convert, back': Command(('convert', 'IN/lines', '--out', 'OUT/atlas'), 'atlas'),
    'sft': Command(('sft', *of_recipe('sft')), 'sft'),
    'bam': Command(('bam', *of_recipe('bam')), 'bam'),
    'rl': Command(('rl', *of_recipe('rl')), 'rl'),
    'predict': Command(
        ('predict', '--model', 'IN/base', '--atlas', 'IN/atlas', '--out', 'OUT/a.jsonl', '--max-new-tokens', '8'),
        'a.jsonl',
    ),
    'evaluate': Command((*SCORED, 'IN/a.jsonl'), 'report', 'report.html'),
    'evaluate, again': Command((*SCORED, 'IN/a.jsonl'), 'report', 'report.html', before='other'),
    'study': Command(
        ('study', 'A', '--out', 'OUT/study', '--seeds', '1', '--workers', '1', '--quick'), 'study', 'study_A/run.json'
    ),
    'judge': Command((*SCORED, 'IN/a.jsonl', *JUDGED, 'URL'), 'report', 'report.html'),
    'transcribe': Command(
        ('transcribe', '--atlas', 'IN/plain', '--model', 'IN/recogniser', '--out', 'OUT/atlas'), 'atlas'
    ),
    'init-model': Command(('init-model', '--atlas', 'IN/atlas', '--out', 'OUT/model'), 'model'),
    'init-model, a copy': Command(('init-model', '--model', 'IN/base', '--out', 'OUT/model'), 'model'),
    'merge': Command(('merge', '--model', 'IN/stage', '--out', 'OUT/model'), 'model'),
    'merge, released': Command(('merge', '--model', 'IN/stage', '--form', 'released', '--out', 'OUT/model'), 'model'),
    'tutorial': Command(('tutorial', *CREMAD, *MUSTARD, *FEWEST, '--out', 'OUT/run'), 'run', 'report.html'),
}
TRAINED = dict(
    sft=dict(stage='classify', model='IN/base', train=FEW),
    bam=dict(stage='bam', model='IN/stage', train=FEW),
    rl=dict(model='IN/base', train=dict(steps=4, prompts=4, rollouts=2, max_new_tokens=8, save_every=1)),
)


def load():
    "Import what the commands import, and make the process ready for a fork."
    import torch
    from tqdm import tqdm

    from omnisapiens_nb.evaluation.similarity import minilm

    for name in MODULES:
        importlib.import_module(f'omnisapiens_nb.{name}')
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0  # Its bars begin no thread
    tqdm.set_lock(threading.RLock())  # Its usual lock is one of all forks, and a killed fork may have it
    minilm()
    names = [file.read_text().strip() for file in Path('/proc/self/task').glob('*/comm')]
    others = [name for name in names[1:] if not name.startswith('jemalloc')]  # That one knows of forks
    assert not others, f'threads are at work, which a fork would not have: {others}'


def smaller():
    "Let study A be of one method, two sources and few steps, so that it takes seconds."
    from omnisapiens_nb.atlas.mini.mustard import write_mustard
    from omnisapiens_nb.atlas.mini.siq2 import write_siq2
    from omnisapiens_nb.studies import methods

    def write_two(folder, seed):
        write_mustard(folder / 'mustard', seed, rows=24)
        write_siq2(folder / 'siq2', seed, videos=(4, 1, 1))

    few = methods.StudyConfig(sft_steps=4, rl_steps=2, test_rows=4, max_new_tokens=8)
    methods.StudyConfig.quick = classmethod(lambda cls: few)
    methods.write_all = write_two
    methods.STUDIES['A'] = {name: methods.STUDIES['A'][name] for name in list(methods.STUDIES['A'])[:1]}


def call(words):
    "Run a command in this process; the exit status, and a traceback on standard error where a fault is no sentence."
    import traceback

    from omnisapiens_nb.cli import main

    smaller()
    sys.argv = ['omnisapiens-nb', *words]
    status = UNBEGUN
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        status = CRASHED
        main()
    except SystemExit as e:
        return e.code or 0
    except BaseException:
        traceback.print_exc()
        return status
    return 0


class Start:
    "A command at work."

    def __init__(self, words, said, prepare=None):
        self.said = said
        self.begun = time.monotonic()
        if HAS_FORK:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            self.pid = os.fork()
            if self.pid:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            else:
                self._work(words, prepare)
        else:
            with said.open('wb') as file:
                command = [sys.executable, __file__, *words]
                self.process = subprocess.Popen(command, stdout=file, stderr=file)

    def _work(self, words, prepare):
        "In the fork: no way leads back."
        status = CRASHED
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.alarm(SECONDS)
            file = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.stdout = open(1, 'w', closefd=False)
            sys.stderr = open(2, 'w', closefd=False)
            if prepare:
                prepare()
            status = call(words)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def send(self, number):
        "Send a signal to the command and to what it started."
        if HAS_FORK:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
        else:
            self.process.send_signal(number)

    def wait(self):
        "Exit status, negative where a signal ended it."
        if not HAS_FORK:
            return self.process.wait(SECONDS)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def run(words, said, **kwargs):
    "A command to its end: exit status, seconds, and what it said."
    start = Start(words, said, **kwargs)
    status = start.wait()
    return status, time.monotonic() - start.begun, said.read_text(errors='replace')


class Judge(BaseHTTPRequestHandler):
    "Finds answers of an even length right."

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers['content-length'])))
        text = json.dumps(dict(correct=len(body['messages'][-1]['content']) % 2 == 0))
        choice = dict(index=0, message=dict(role='assistant', content=text), finish_reason='stop')
        data = json.dumps(dict(choices=[choice], usage=dict(prompt_tokens=9, completion_tokens=9))).encode()
        time.sleep(0.02)
        self.send_response(200)
        self.send_header('content-length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class QuietServer(HTTPServer):
    def handle_error(self, *_):
        pass  # A command that was stopped hears no answer


@contextlib.contextmanager
def judge():
    "The address of a judge that a process of its own serves."
    server = QuietServer(('127.0.0.1', 0), Judge)
    address = f'http://127.0.0.1:{server.server_port}/v1'
    pid = os.fork()
    if not pid:
        try:
            server.serve_forever()
        finally:
            os._exit(0)
    server.server_close()
    try:
        yield address
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class Bench:
    "Inputs of all commands in one folder, and a place for outputs of each start."

    def __init__(self, folder, url=''):
        self.folder = Path(folder)
        self.inputs = self.folder / 'in'
        self.out = self.folder / 'out'
        self.url = url
        self.said = self.folder / 'said'  # File with what the last command said
        self.usual = []  # Lines that the undisturbed command says

    def words(self, command, out=None):
        "A command with its places filled in."
        places = dict(IN=self.inputs, OUT=out or self.out, URL=self.url)
        found = []
        for word in command.words:
            for name, place in places.items():
                word = word.replace(name, str(place)) if name in word else word
            found.append(word)
        return found

    def open(self, command):
        "The folder for outputs, empty but for recipes and for what lies there beforehand."
        import yaml

        out = self.out
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        for stage, recipe in TRAINED.items():
            model = recipe['model'].replace('IN', str(self.inputs))
            common = dict(atlas=str(self.inputs / 'atlas'), out=str(out / stage), rows=12, device='cpu')
            (out / f'{stage}.yaml').write_text(yaml.safe_dump(recipe | common | dict(model=model)))
        if command.before:
            shutil.copytree(self.inputs / command.before, out / command.out)
        return out

    def make(self):
        "Write sources, and make of them what the commands take; each by a command."
        from omnisapiens_nb.atlas.mini.cremad import write_cremad
        from omnisapiens_nb.atlas.mini.mustard import write_mustard
        from omnisapiens_nb.atlas.mini.siq2 import write_siq2
        from omnisapiens_nb.atlas.transcripts import tiny_recogniser

        sources = self.inputs / 'sources'
        write_cremad(sources / 'cremad', actors=2)
        write_mustard(sources / 'mustard', rows=24)
        write_siq2(sources / 'siq2', videos=(4, 1, 1))
        made = self.inputs
        self._step(*self.words(COMMANDS['curate'], made)[:-1], made / 'plain')
        self._step('describe', '--atlas', made / 'plain', '--out', made / 'atlas')
        self._step('convert', made / 'atlas', '--out', made / 'lines')
        tiny_recogniser(made / 'recogniser')
        self._step('init-model', '--atlas', made / 'atlas', '--out', made / 'base')
        self.open(COMMANDS['sft'])
        self._step(*self.words(COMMANDS['sft']))
        (self.out / 'sft').rename(made / 'stage')
        self._step(*self.words(COMMANDS['predict'], made))
        answers = map(json.loads, (made / 'a.jsonl').read_text().splitlines())
        lines = [json.dumps(answer | dict(response='happy')) + '\n' for answer in answers]
        (made / 'b.jsonl').write_text(''.join(lines))
        words = [*self.words(COMMANDS['evaluate'], made)[:-1], made / 'b.jsonl']
        self._step(*words)
        (made / 'report').rename(made / 'other')

    def run(self, command, **kwargs):
        "A command to its end: exit status, seconds, and what it said."
        return run(self.words(command), self.said, **kwargs)

    def undisturbed(self, command):
        "Files and seconds of a command that nobody stops."
        self.open(command)
        status, seconds, said = self.run(command)
        assert status == 0, said[-3000:]
        assert not beside(self.out), beside(self.out)
        self.usual = lines_of(said)
        return left(self.out), seconds

    def fault_of_end(self, status, said, wanted):
        "What is wrong with how a command stopped; empty if it said one sentence beside the usual, with that status."
        lines = [line for line in lines_of(said) if line not in self.usual]
        if status != wanted or len(lines) != 1 or not lines[0].startswith('error: '):
            return f'it ends with {status} and says {said[-1500:]!r}'
        return ''

    def fault_after(self, command, wholes):
        "What is wrong after a stop, or after the same command has been run again; empty where nothing is."
        found = left(self.out)
        fault = half_done(command, found, *wholes)
        if fault:
            return fault
        is_done = not command.last and bool(found)
        status, _, said = self.run(command)
        if status and not (is_done and 'exists already' in said):
            return f'the rerun ends with {status}: {said[-1000:]}'
        found = left(self.out)
        if found != wholes[-1]:
            names = [name for name in wholes[-1].keys() | found.keys() if found.get(name) != wholes[-1].get(name)]
            return f'after the rerun {sorted(names)} differ'
        rest = beside(self.out)
        return f'{rest} stay' if rest and not is_done else ''

    def _step(self, *words):
        status, _, said = run([str(word) for word in words], self.said)
        assert status == 0, said[-3000:]


def lines_of(said):
    "What a command said, without bars and blank lines."
    return [line for line in said.splitlines() if line.strip() and '%|' not in line]


TIMES = {'seconds', 'resumed'}  # Of a study's `run.json`; a later run has others
LITTER = '.tmp'  # Of a verdict of a judge; a kill may leave one, which nobody reads
UNFINISHED = ('.partial', '.unfinished', '.run', '.lock', LITTER)  # In names of what is no result yet


def content(path):
    "Sum of a file; of a study's `run.json` without its times."
    data = path.read_bytes()
    if path.name == 'run.json' and data:
        found = json.loads(data)
        data = json.dumps({name: value for name, value in found.items() if name not in TIMES}).encode()
    return sha256(data).hexdigest()


def left(folder):
    "Files of a folder with their sums, without what is not finished."
    found = {}
    for path in sorted(folder.rglob('*')):
        name = str(path.relative_to(folder))
        if path.is_file() and path.suffix != '.yaml' and not any(mark in name for mark in UNFINISHED):
            found[name] = content(path)
    return found


def beside(folder):
    "Names of what is not finished, and should not stay."
    names = (str(path.relative_to(folder)) for path in folder.rglob('*'))
    return sorted(name for name in names if any(mark in name for mark in UNFINISHED) and not name.endswith(LITTER))


def half_done(command, found, *wholes):
    "What is under its final name and is not whole; empty where each file is, and where the last one has all others."
    for name, digest in found.items():
        if all(whole.get(name) != digest for whole in wholes):
            return f'{name} is there and not whole'
    last = f'{command.out}/{command.last}'
    if command.last:
        is_done = last in found
    else:
        is_done = bool(found)
    if is_done and found not in wholes:
        return f'{command.out} looks whole and has {len(found)} of {len(wholes[-1])} files, or of two runs'
    return ''


if __name__ == '__main__':
    sys.exit(call(sys.argv[1:]))
