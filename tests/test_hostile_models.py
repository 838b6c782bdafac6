"Folders of models that ask for more than to be read."

import json
import shutil

import pytest

from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.sft.model import load_model


@pytest.mark.parametrize('file', ['tokenizer_config.json', 'preprocessor_config.json'])
def test_code_in_a_model_folder_is_not_run(file, tmp_path, warm_start, monkeypatch):
    "A folder that names a class of its own, in a file beside it: nobody is asked, and nothing is run."
    folder = shutil.copytree(warm_start, tmp_path / 'model')
    (folder / 'own.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")\nclass Own: pass\n')
    kind = 'AutoTokenizer' if file.startswith('tokenizer') else 'AutoFeatureExtractor'
    own = ['own.Own', None] if kind == 'AutoTokenizer' else 'own.Own'
    settings = json.loads((folder / file).read_text())
    kept = {key: value for key, value in settings.items() if key not in ('tokenizer_class', 'feature_extractor_type')}
    (folder / file).write_text(json.dumps(kept | dict(auto_map={kind: own})))
    monkeypatch.setattr('builtins.input', lambda *_: pytest.fail('somebody was asked'))
    with pytest.raises(SourceError, match='asks to run code of its own'):
        load_model(folder)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    ('said', 'wrong'),
    [
        ('{"frames": 2, "size": 5', 'the file: Invalid JSON'),
        ('[2, 56]', 'the file: Input should be an object'),
        ('{"frames": 2, "size": 1000000}', 'size: Input should be less than or equal to 4096'),
        ('{"frames": "many"}', 'frames: Input should be a valid integer'),
        ('{"frames": 2, "sise": 56}', 'sise: Extra inputs are not permitted'),
        ('{"profile": {"seconds": -1}}', 'profile.seconds: Input should be greater than 0'),
    ],
)
def test_settings_that_are_none(said, wrong, tmp_path, warm_start):
    folder = shutil.copytree(warm_start, tmp_path / 'model')
    (folder / 'film.json').write_text(said)
    with pytest.raises(SourceError) as told:
        load_model(folder)
    assert f'{folder / "film.json"}: {wrong}' in str(told.value)
