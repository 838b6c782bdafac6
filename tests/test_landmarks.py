"MediaPipe's landmarks on a real talking person, in the environment that `make landmarks-env` makes."
import numpy as np
import pytest
from conftest import ROOT
from omnisapiens_nb.atlas.holistic import PARTS
from omnisapiens_nb.atlas.landmarks import landmarks, pool_landmarks

PYTHON = ROOT / ".venv-landmarks" / "bin" / "python"


@pytest.mark.skipif(not PYTHON.is_file(), reason="no MediaPipe (over a gigabyte): make landmarks-env")
def test_a_talking_person(shared):
    films = [(shared / "data" / "video_samples" / f"carphone_{kind}.mp4").read_bytes() for kind in ("pristine", "distorted")]
    clear, blurred = landmarks(films, PYTHON)
    assert clear.shape == blurred.shape == (120, 553, 3)
    face = slice(PARTS["pose"], PARTS["pose"] + PARTS["face"])
    assert (clear[:, face, 2] > 0).all(1).mean() > .9
    assert (blurred[:, face, 2] > 0).all(1).mean() < (clear[:, face, 2] > 0).all(1).mean()
    inside = clear[:, face, :2][clear[:, face, 2] > 0]
    assert ((inside > 0) & (inside < 1)).mean() > .95
    assert all(np.isfinite(pool_landmarks(x)).all() and len(pool_landmarks(x)) == 3318 for x in (clear, blurred))
