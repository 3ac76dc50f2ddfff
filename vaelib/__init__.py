"""Learn variational autoencoders by making anime and cartoon faces.

Every public name is imported on first use, so `import vaelib` costs next to nothing.
"""

import importlib

_HOME_OF = {
    "download": "downloading",
    "prepare": "preparing",
    "draw_face": "drawn",
    "draw_faces": "drawn",
    "Faces": "faces",
    "load_faces": "faces",
    "Posterior": "model",
    "VAE": "model",
    "DenseVAE": "model",
    "bernoulli_nll": "losses",
    "gaussian_nll": "losses",
    "optimal_gaussian_nll": "losses",
    "kl_divergence": "losses",
    "RECIPES": "recipes",
    "TrainConfig": "recipes",
    "SharpenConfig": "recipes",
    "TrainingRun": "training",
    "train": "training",
    "sharpen": "sharpening",
    "psnr": "metrics",
    "ssim": "metrics",
    "evaluate": "metrics",
    "evaluate_samples": "metrics",
    "sliced_wasserstein": "metrics",
    "nearest_faces": "metrics",
    "NormalPrior": "priors",
    "ExponentialPrior": "priors",
    "fit_priors": "priors",
    "PCAAxes": "latents",
    "NamedAxes": "latents",
    "encode_faces": "latents",
    "fit_attributes": "latents",
    "fit_pca": "latents",
    "interpolate": "latents",
    "Bundle": "pretrained",
    "load_pretrained": "pretrained",
    "LatentExplorer": "explorer",
}

__all__ = sorted(_HOME_OF)
__version__ = "0.1.0"


def __getattr__(name: str):
    if name not in _HOME_OF:
        raise AttributeError(f"module 'vaelib' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"vaelib.{_HOME_OF[name]}"), name)


def __dir__():
    return __all__
