import numpy as np
import torch

import vaelib
from exercise_cases import Case
from vaelib.features import read_labels
from vaelib.plots import decode

NAMES = ("drawn-anime", "drawn-cartoon")
BUNDLES = {name: vaelib.load_pretrained(name) for name in NAMES}
FACES = {name: vaelib.load_faces(name, count=400, verbose=False) for name in NAMES}
LATENTS = {name: vaelib.encode_faces(BUNDLES[name].vae, FACES[name]).mean for name in NAMES}
ATTRIBUTES = {name: vaelib.fit_attributes(LATENTS[name], FACES[name].labels) for name in NAMES}
AXES = vaelib.fit_pca(LATENTS["drawn-anime"])
Z0 = LATENTS["drawn-anime"][:1]
COUNT = int((vaelib.fit_pca(LATENTS["drawn-anime"], count=128).explained.cumsum(0) < 0.9).sum()) + 1
Z, KIND = LATENTS["drawn-cartoon"], FACES["drawn-cartoon"].labels["glasses"]
GLASSES = Z[torch.from_numpy(KIND != "none")].mean(0) - Z[torch.from_numpy(KIND == "none")].mean(0)
FOUND = "tilt"  # the head leans, and that moves every line

IMAGES, LABELS = vaelib.draw_faces("cartoon", 200, seed=7)
PEOPLE = vaelib.encode_faces(BUNDLES["drawn-cartoon"].vae, vaelib.Faces(IMAGES)).mean
MEANS = {kind: Z[torch.from_numpy(kind == KIND)].mean(0) for kind in sorted(set(KIND))}
OLD = torch.stack([MEANS[kind] for kind in LABELS["glasses"]])
GIVEN = {
    "vaelib": vaelib,
    "torch": torch,
    "latents": LATENTS,
    "axes": AXES,
    "faces": FACES,
    "bundles": BUNDLES,
    "attributes": ATTRIBUTES,
    "people": {"drawn-cartoon": PEOPLE},
    "own": {"drawn-cartoon": LABELS["hair"]},
    "read_labels": read_labels,
    "decode": decode,
}

CASES = {
    "count": Case(right=[COUNT], wrong=[COUNT - 1, COUNT + 1, 0, 12, 500, 0.9, "39"], names=GIVEN),
    "w0": Case(
        right=[AXES.weights(Z0), AXES.weights(Z0).numpy(), AXES.weights(Z0) + 1e-4],
        wrong=[AXES.weights(Z0)[0], torch.zeros(1, 12), 2 * AXES.weights(Z0), Z0, 12, "axes.weights"],
        names=GIVEN,
    ),
    "glasses": Case(
        right=[GLASSES, GLASSES * 1.001],
        wrong=[-GLASSES, 2 * GLASSES, Z[torch.from_numpy(KIND != "none")].mean(0), GLASSES.flatten(), 1.0, "glasses"],
        names=GIVEN,
    ),
    "found": Case(right=[FOUND, np.str_(FOUND)], wrong=["skin", "smile", "axis 1", 1, True], names=GIVEN),
    "with_shades": Case(
        right=[PEOPLE + MEANS["shades"] - OLD, (PEOPLE + MEANS["shades"] - OLD).numpy()],
        wrong=[
            PEOPLE,
            PEOPLE + 0.2 * (MEANS["shades"] - OLD),
            MEANS["shades"].expand_as(PEOPLE),
            PEOPLE[:8],
            PEOPLE.flatten(1),
            "shades",
        ],
        names=GIVEN,
    ),
}
