import base64
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vaelib.plots import decode, face_grid
from vaelib.pretrained import load_pretrained

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
from picks import sheet


def test_each_pair_is_one_latent_by_both_models_and_the_key_says_whose_is_at_left():
    models = ["drawn-anime", "drawn-cartoon"]
    page = sheet(models, pairs=12, seed=4)
    pairs = json.loads(re.search(r"pairs = (\[.*\]);", page)[1])
    assert len(pairs) == 12 and {left for *_, left in pairs} == {0, 1}
    faces = []
    for model in models:
        bundle = load_pretrained(model)
        z = bundle.priors["flow"].sample(12, torch.Generator().manual_seed(4))
        faces.append(decode(bundle.vae, z))
    for row, (left_png, right_png, left) in enumerate(pairs):
        for png, model in ((left_png, left), (right_png, 1 - left)):
            shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
            expected = np.asarray(face_grid(faces[model][row][None], columns=1, scale=4))
            assert np.array_equal(shown, expected)
    assert sheet(models, pairs=3, seed=1) != sheet(models, pairs=3, seed=2)
