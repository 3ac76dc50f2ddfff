"""How good is a model? Distortion as PSNR and SSIM, rate in nats, and how many latents are in use."""

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from vaelib.faces import Faces
from vaelib.losses import kl_divergence, kl_per_dimension
from vaelib.model import inference


def psnr(x_hat: Tensor, x: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture, dB, shape (B,): -10 log₁₀(mean squared error).

    Both float (B, C, H, W) in [0, 1]. Average over pictures, not over errors: one bad face then counts as one.
    """
    return peak_signal_noise_ratio(x_hat, x, data_range=1.0, dim=(1, 2, 3), reduction="none")


def ssim(x_hat: Tensor, x: Tensor) -> Tensor:
    """Structural similarity of each picture, 1 for equal ones, shape (B,). Both float (B, C, H, W) in [0, 1].

    Gaussian window of 11×11 pixels with σ = 1.5; Wang et al. 2004, computed by torchmetrics.
    """
    return structural_similarity_index_measure(x_hat, x, data_range=1.0, reduction="none")


def reconstruct(vae: nn.Module, x: Tensor) -> Tensor:
    """Decode the posterior's mean: float (B, 3, H, W) in [0, 1] -> the same. Batch norm uses its running averages."""
    with inference(vae):
        return vae.decode(vae.encode(x).mean)


def evaluate(vae: nn.Module, faces: Faces, batch_size: int = 256) -> dict[str, float]:
    """Means over all `faces`: `psnr` (dB) and `ssim` of posterior-mean reconstructions, `rate` (nats per image), and
    `active_units`, the number of latent dimensions with a mean KL above 0.01 nats. Use faces kept out of training.
    """
    scores, kl = [], []
    with inference(vae) as device:
        for start in range(0, len(faces), batch_size):
            x = faces.batch(slice(start, start + batch_size)).to(device)
            posterior = vae.encode(x)
            x_hat = vae.decode(posterior.mean)
            scores.append(torch.stack([psnr(x_hat, x), ssim(x_hat, x), kl_divergence(posterior)]))
            kl.append(kl_per_dimension(posterior).flatten(1))
    means = torch.cat(scores, 1).mean(1).tolist()
    active = int((torch.cat(kl).mean(0) > 0.01).sum())
    return dict(zip(("psnr", "ssim", "rate"), means, strict=True)) | {"active_units": active}
