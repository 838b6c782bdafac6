"MediaPipe's landmarks on a real talking person, in the environment that `make landmarks-env` makes."

import json
import subprocess

import numpy as np
import pytest
from conftest import ROOT

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.descriptors import read_descriptors
from omnisapiens_nb.atlas.landmarks import PLACES, found_shares, landmarks, mediapipe_version, pool_landmarks
from omnisapiens_nb.atlas.media import MediaError
from omnisapiens_nb.atlas.mini.siq2 import write_siq2
from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.atlas.store import open_atlas, rewrite_atlas
from omnisapiens_nb.runs.describe import describe_atlas

PYTHON = ROOT / '.venv-landmarks' / 'bin' / 'python'
pytestmark = pytest.mark.skipif(not PYTHON.is_file(), reason='no MediaPipe (over a gigabyte): make landmarks-env')

# A HolisticLandmarker bundle of the models that come with the package. Its face model lacks the irises: the face has
# 478 points, in wrong places.
BUNDLE = """
import sys, zipfile
from pathlib import Path
import mediapipe
from mediapipe.tasks.python.metadata.metadata_writers.metadata_writer import MetadataWriter
models = dict(
    face_detector='face_detection/face_detection_short_range',
    face_landmarks_detector='face_landmark/face_landmark',
    pose_detector='pose_detection/pose_detection',
    pose_landmarks_detector='pose_landmark/pose_landmark_full',
    hand_landmarks_detector='hand_landmark/hand_landmark_full',
    hand_roi_refinement='holistic_landmark/hand_recrop',
)
def read(name):
    data = (Path(mediapipe.__file__).parent / 'modules' / f'{models[name]}.tflite').read_bytes()
    if name not in ('pose_landmarks_detector', 'hand_roi_refinement'):
        return data
    writer = MetadataWriter.create(bytearray(data))
    writer.add_general_info(name, name)
    writer.add_image_input([0.], [255.])
    return bytes(writer.populate()[0])
with zipfile.ZipFile(sys.argv[1], 'w') as bundle:
    for name in models:
        bundle.writestr(f'{name}.tflite', read(name))
"""


@pytest.fixture(scope='module')
def videos(shared):
    folder = shared / 'data' / 'video_samples'
    return [(folder / f'carphone_{kind}.mp4').read_bytes() for kind in ('pristine', 'distorted')]


@pytest.fixture(scope='module')
def found(videos):
    return landmarks(videos, PYTHON)


def test_a_talking_person(found):
    "Found in most pictures where it can be seen, in few where the video is compressed to mush."
    clear, blurred = found
    assert clear.shape == blurred.shape == (120, 553, 3)
    assert found_shares(clear)['face'] > 0.9 and found_shares(clear)['pose'] > 0.9
    assert found_shares(blurred)['face'] < 0.5
    face = clear[:, PLACES['face']]
    inside = face[..., :2][face[..., 2] > 0]
    assert ((inside > 0) & (inside < 1)).mean() > 0.95
    assert all(np.isfinite(pool_landmarks(x)).all() and len(pool_landmarks(x)) == 3318 for x in found)


def test_the_face_is_where_the_head_is(found):
    "Two models agree: nose, eyes and mouth of the body's landmarks lie among the points of the face."
    clear, _ = found
    face, body = clear[:, PLACES['face'], :2], clear[:, PLACES['pose'], :2]
    for part in (0, 2, 5, 9, 10):  # Nose, eyes, corners of the mouth
        inside = (face.min(1) < body[:, part]) & (body[:, part] < face.max(1))
        assert inside.all(-1).mean() > 0.9


def test_the_same_points_by_the_tasks_api(videos, found, tmp_path):
    "Without a hand in the picture, where mediapipe's own reading of the result aborts the process."
    bundle = tmp_path / 'made.task'
    subprocess.run([PYTHON, '-c', BUNDLE, bundle], check=True, capture_output=True)
    (again,) = landmarks(videos[:1], PYTHON, bundle)
    assert again.shape == (120, 553, 3)
    shares = found_shares(again)
    assert shares['pose'] > 0.9 and shares['left_hand'] == shares['right_hand'] == 0
    assert np.median(np.abs(again - found[0])[:, PLACES['pose']]) < 0.01


def test_a_file_that_is_no_model(videos, tmp_path):
    (tmp_path / 'noise.task').write_bytes(b'no model')
    with pytest.raises(SourceError, match='noise.task: no model of a HolisticLandmarker .*give the'):
        landmarks(videos[:1], PYTHON, tmp_path / 'noise.task')
    with pytest.raises(SourceError, match='none.task: no such file'):
        landmarks(videos[:1], PYTHON, tmp_path / 'none.task')


def test_a_video_that_is_none(videos):
    with pytest.raises(MediaError, match="video 1 gave no landmarks: .*begins with b'noise'"):
        landmarks([videos[1], b'noise'], PYTHON)


def test_an_atlas_with_landmarks(videos, tmp_path, monkeypatch):
    "The row of the real video has 3,318 numbers, a drawn face that is never found has none."
    monkeypatch.chdir(ROOT)
    write_siq2(tmp_path / 'siq2', videos=(4, 1, 1))
    atlas = curate({'siq2': tmp_path / 'siq2'}, tmp_path / 'plain').folder
    real = next(r['id'] for r in open_atlas(atlas) if r['videos'])

    def with_real_video(row):
        return row | dict(videos=[videos[0]]) if row['id'] == real else row

    atlas = rewrite_atlas(atlas, tmp_path / 'atlas', with_real_video, {})
    rows = list(open_atlas(describe_atlas(atlas, tmp_path / 'out', ['landmarks'])))
    assert json.loads((tmp_path / 'out' / 'descriptors.json').read_text()) == dict(
        landmarks=dict(width=3318, package='mediapipe', version='0.10.21')
    )
    assert mediapipe_version(PYTHON) == '0.10.21'
    for row in rows:
        assert len(row['ext_video_feats']) == len(row['videos'])
        if row['id'] == real:
            assert read_descriptors(row['ext_video_feats'][0], 3318).isfinite().all()
        elif row['videos']:
            with pytest.raises(MediaError, match='3318 of 3318 descriptors are not finite'):
                read_descriptors(row['ext_video_feats'][0], 3318)
