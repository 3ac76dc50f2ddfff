"""What the explorer knows and does, without a browser: a point in latent space, a morph, and the pictures of both.

state = ExplorerState(vaelib.load_pretrained("drawn-anime"))
state.randomize(torch.Generator().manual_seed(0))
png = state.render(size=512)
code = state.code                       # a short text, from which `restore` makes the very face again
"""

import base64
import copy
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from vaelib.drawn import draw_face, sample_factors
from vaelib.faces import to_float
from vaelib.fast_decoding import FastDecoder
from vaelib.latents import NamedAxes, between
from vaelib.model import inference
from vaelib.preparing import FORMATS, LAYOUTS, open_picture, to_face
from vaelib.pretrained import Bundle

LIMIT = 3.0  # weights go from -3 to 3 σ
ANIMATION_STEP = 0.05  # per frame and axis
MORPH_STEP = 0.01  # of the way, per frame
AXES = "axes"  # draw the weights themselves from N(0, 1); the other choices are the bundle's priors
STRIP_WEIGHTS = (-3.0, -1.5, 0.0, 1.5, 3.0)
UNDO_STEPS = 200
CODE_VERSION = "vae1"
PICTURE = "picture"  # where a code says that its face was not drawn from a prior, but encoded
LATENT_STEPS = 16  # to 1: an encoded latent stands on this grid, from -8 to 8, so that a code can hold it


class _Scene:
    """Something with a `latent()` to show, a `step()` to animate it by, and changes that can be undone."""

    decoder: FastDecoder
    undone: tuple[str, ...]  # the attributes that `undo` sets back; changes replace their values
    _past: list[dict]
    _changing: object  # what changed last, if it may go on changing

    def latent(self) -> Tensor:
        """The latent shown, float32 (1, *latent_shape)."""
        raise NotImplementedError

    def step(self, speed: float = 1.0) -> None:
        """One frame of the animation."""
        raise NotImplementedError

    def reset(self) -> None:
        """Go back to where the scene began."""
        raise NotImplementedError

    def remember(self) -> None:
        """Make the present state the one that `undo` goes back to."""
        self._changing = None
        self._past = [*self._past[1 - UNDO_STEPS :], {name: getattr(self, name) for name in self.undone}]

    def undo(self) -> None:
        """Take the last change back; nothing where there is none."""
        self._changing = None
        if self._past:
            vars(self).update(self._past.pop())

    def _remember_unless(self, changing: object) -> None:
        """`remember`, unless it is the same again that changes: a slider dragged is one step back, not fifty."""
        if changing != self._changing:
            self.remember()
            self._changing = changing

    def face(self) -> Tensor:
        """The face shown, as the model decodes it: float32 (3, S, S) in [0, 1]."""
        return self.decoder(self.latent())[0]

    def picture(self, size: int) -> Image.Image:
        """The face as an RGB picture of `size`×`size` pixels, enlarged or reduced by Lanczos."""
        return to_pil_image(self.face()).resize((size, size), Image.Resampling.LANCZOS)

    def render(self, size: int = 256, format: str = "PNG") -> bytes:
        """The face as a file of `size`×`size` pixels: a PNG, or a JPEG: smaller and faster."""
        return to_file(self.picture(size), format)

    def frames(self, count: int, size: int = 256, speed: float = 1.0) -> Iterator[Image.Image]:
        """`count` pictures of the animation, from where the scene stands. The scene itself stays."""
        walker = copy.copy(self)  # steps replace what they change, so a shallow copy walks alone
        for _ in range(count):
            yield walker.picture(size)
            walker.step(speed)


@dataclass(frozen=True)
class Draw:
    """A latent drawn from the bundle's prior called `prior`, its distance from the mean face times `spread`."""

    prior: str
    seed: int
    spread: float


@dataclass(frozen=True)
class Encoded:
    """A latent that a picture was encoded to: its numbers, row by row, each a signed byte that counts sixteenths."""

    steps: bytes

    @classmethod
    def of(cls, z: Tensor) -> "Encoded":
        """The nearest to latent `z`, float (*latent_shape)."""
        steps = (LATENT_STEPS * z).round().clamp(-128, 127).to(torch.int8)
        return cls(steps.flatten().numpy().tobytes())

    def latent(self, shape: tuple[int, ...]) -> Tensor:
        """The latent, float32 (1, *shape)."""
        steps = np.frombuffer(self.steps, np.int8).astype(np.float32)
        return torch.from_numpy(steps / LATENT_STEPS).reshape(1, *shape)


class ExplorerState(_Scene):
    """A point in a bundle's latent space, and the face that stands there.

    `weights` holds a float from -3 to 3 for each of `names`: first the bundle's PCA axes, in standard deviations from
    the mean, then the `attributes` where given, at right angles to each other if `orthogonal`. At first all are 0: the
    mean face. `locked` holds the indices that `randomize` and `step` leave alone. `prior` ("axes" or a name of
    `bundle.priors`) and `spread` (1 as it comes, 0 the mean face) say how `randomize` draws; `draw` tells where
    the present face's remainder, which no axis describes, came from, a prior or a picture; None: there is none.
    `directions` holds the way in which each PCA weight moves when animated, 1 or -1.
    """

    undone = ("weights", "draw", "orthogonal")

    def __init__(self, bundle: Bundle, attributes: NamedAxes | None = None, name: str | None = None):
        self.bundle = bundle
        self.name = name or bundle.card["faces"]
        self.decoder = FastDecoder(bundle.vae)
        self.directions = [1 if axis % 2 == 0 else -1 for axis in range(len(bundle.axes))]
        self.prior, self.spread = AXES, 1.0
        self.use(attributes)

    def use(self, attributes: NamedAxes | None) -> None:
        """Take these attributes instead of those before, and start again at the mean face."""
        self.attributes, self.orthogonal = attributes, False
        fits = attributes and len(attributes) <= attributes.directions[0].numel()
        self._at_right_angles = attributes.orthogonal() if fits else None
        self.names = [f"axis {number}" for number in range(1, len(self.bundle.axes) + 1)]
        self.names += attributes.names if attributes else ()
        self.weights, self.draw = [0.0] * len(self.names), None
        self.locked: set[int] = set()
        self._past, self._changing = [], None

    @property
    def can_be_orthogonal(self) -> bool:
        """Whether there are attributes, and no more than the latent space has dimensions."""
        return self._at_right_angles is not None

    def move(self, index: int, weight: float) -> None:
        """Set one weight. Moving the same again makes no further step for `undo`."""
        self._remember_unless(index)
        self.weights = [*self.weights[:index], weight, *self.weights[index + 1 :]]

    def reset(self) -> None:
        """Go to the mean face: every weight 0, locked or not."""
        self.remember()
        self.weights, self.draw = [0.0] * len(self.names), None

    def randomize(self, generator: torch.Generator | None = None) -> None:
        """Draw a face from `prior`, `spread` times as far from the mean, and every direction by a coin.

        With "axes", each PCA weight comes from N(0, 1); with a prior, from where its latent lies on the axes. Weights
        are rounded to 0.1 and clipped to ±3; attributes go to 0; what is locked stays.
        """
        self.remember()
        count = len(self.bundle.axes)
        if self.prior == AXES:
            self.draw, drawn = None, self.spread * torch.randn(count, generator=generator)
        else:
            seed = int(torch.randint(2**32, (), generator=generator))
            self.draw = Draw(self.prior, seed, self.spread)
            drawn, _ = self._taken_apart(self.draw)
        coins = torch.randint(2, (count,), generator=generator)
        drawn = _rounded(drawn) + [0.0] * (len(self.names) - count)
        self.weights = [self.weights[i] if i in self.locked else weight for i, weight in enumerate(drawn)]
        self.directions = (2 * coins - 1).tolist()

    def encode(self, picture: Tensor) -> None:
        """Show what the model makes of `picture`, float (3, S, S) in [0, 1] of the model's size, ready to be changed.

        The sliders go where the face lies, within ±3, attributes to 0, locked or not; what the sliders leave over
        stays with the face.
        """
        with inference(self.bundle.vae):
            z = self.bundle.vae.encode(picture[None]).mean[0]
        self.take(Encoded.of(z))

    def take(self, draw: Draw | Encoded) -> None:
        """Go to a latent that was drawn or encoded: the sliders as near to it as they can be, attributes at 0."""
        self.remember()
        self.draw = draw
        weights, _ = self._taken_apart(draw)
        self.weights = _rounded(weights) + [0.0] * (len(self.names) - len(weights))

    def step(self, speed: float = 1.0) -> None:
        """One frame of the animation: each PCA weight moves 0.05·`speed` in its own direction and bounces at ±3."""
        weights, directions = list(self.weights), list(self.directions)
        for axis, weight in enumerate(weights[: len(directions)]):
            if axis in self.locked:
                continue
            if abs(weight + ANIMATION_STEP * speed * directions[axis]) > LIMIT:
                directions[axis] *= -1
            weights[axis] = round(weight + ANIMATION_STEP * speed * directions[axis], 2)  # no drift off the grid
        self.weights, self.directions = weights, directions

    def latent(self) -> Tensor:
        """The latent at `weights`, float32 (1, *latent_shape). Raises `ValueError` for a wrong number of weights."""
        return self._latents(torch.tensor([self.weights]))

    def strips(self, side: int = 32) -> list[Image.Image]:
        """For each axis a picture of what it does: five faces side by side, from -3 to 3 with all else 0."""
        weights = torch.eye(len(self.names))[:, None] * torch.tensor(STRIP_WEIGHTS)[:, None]  # (K, 5, K)
        faces = self.decoder(self._latents(weights.flatten(0, 1), rest=False))
        faces = torch.nn.functional.interpolate(faces, size=(side, side), mode="area")
        return [_side_by_side(row) for row in faces.split(len(STRIP_WEIGHTS))]

    # ------------------------------------------------------------------------------------------------- codes

    @property
    def code(self) -> str:
        """A short text that stands for this face: `restore` makes it again, wherever the same model is loaded."""
        moved = any(self.weights[len(self.bundle.axes) :])  # else the attributes' weights are left out
        weights = self.weights if moved else self.weights[: len(self.bundle.axes)]
        digits = [(round(100 * (weight + LIMIT)), _WEIGHT_BASE) for weight in weights]
        prior = AXES
        if isinstance(self.draw, Encoded):
            prior = PICTURE
            digits += [(step, 256) for step in self.draw.steps]
        elif self.draw:
            prior = self.draw.prior
            digits += [(self.draw.seed, 2**32), (round(10 * self.draw.spread), 256)]
        head = f"{CODE_VERSION}:{self.name}:{prior}"
        kind = moved + (moved and self.orthogonal)  # not moved, moved as fitted, moved at right angles
        body = _pack([*digits, (kind, 3)])
        return f"{head}:{body}{self._check(head, body)}"

    def restore(self, code: str) -> None:
        """Go to the face that `code` stands for. Raises `ValueError`, and stays, where it is none for this model."""
        head, _, text = code.strip().rpartition(":")
        version, prior, name = head.partition(":")[0], head.rpartition(":")[2], model_of(code)
        if version != CODE_VERSION or not name or not text:
            raise ValueError(f"got {code!r}, expected a code such as {self.code}")
        if name != self.name:
            raise ValueError(f"the code is for the model {name!r}, and this is {self.name!r}: choose that model first")
        if prior not in (AXES, PICTURE, *self.bundle.priors):
            known = ", ".join([AXES, *self.bundle.priors])
            raise ValueError(f"the code needs the prior {prior!r}, and {name!r} has {known}: update vaelib")
        body, check = text[:-_CHECK_LENGTH], text[-_CHECK_LENGTH:]
        if not re.fullmatch(r"[\w-]+", body, re.ASCII) or check != self._check(head, body):
            raise ValueError(
                f"the code {code!r} is mistyped, or belongs to other weights or attributes of {name!r}: copy it again"
            )
        number, kind = divmod(_unpacked(body), 3)
        draw = None
        if prior == PICTURE:
            number, steps = divmod(number, 256 ** self.bundle.axes.mean.numel())
            draw = Encoded(steps.to_bytes(self.bundle.axes.mean.numel()))
        elif prior != AXES:
            number, tenths = divmod(number, 256)
            number, seed = divmod(number, 2**32)
            draw = Draw(prior, seed, tenths / 10)
        weights = []
        for _ in range(len(self.names) if kind else len(self.bundle.axes)):
            number, digit = divmod(number, _WEIGHT_BASE)
            weights.append(round(digit / 100 - LIMIT, 2))
        if kind == 2 and not self.can_be_orthogonal:
            raise ValueError(
                f"the code needs axes at right angles, and {len(self.attributes)} have no room for that here"
            )
        self.remember()
        self.draw = draw
        if kind:
            self.orthogonal = kind == 2
        self.weights = weights[::-1] + [0.0] * (len(self.names) - len(weights))

    def _check(self, head: str, body: str) -> str:
        """Four letters that tell a mistyped code, other weights of the same model and other attributes that it uses."""
        axes = np.concatenate([self.bundle.axes.mean.flatten(), self.bundle.axes.scales]).astype("<f4").tobytes()
        names = "\n".join(self.names) if _unpacked(body) % 3 else ""
        digest = hashlib.blake2b(f"{head}:{body}:{names}".encode() + axes, digest_size=3).digest()
        return base64.urlsafe_b64encode(digest).decode()

    # ----------------------------------------------------------------------------------------------- latents

    def _latents(self, weights: Tensor, rest: bool = True) -> Tensor:
        count = len(self.bundle.axes)
        if weights.shape[1] != len(self.names):
            raise ValueError(f"got weights of shape {tuple(weights.shape)}, expected (batch, {len(self.names)})")
        z = self.bundle.axes.latents(weights[:, :count])
        if self.attributes:
            z = z + (self._at_right_angles if self.orthogonal else self.attributes).offsets(weights[:, count:])
        return z + self._remainder if rest and self.draw else z

    @property
    def _remainder(self) -> Tensor:
        if self._remainder_of != self.draw:  # kept: sliders move far more often than faces are drawn
            self._remainder_of, self._kept_remainder = self.draw, self._taken_apart(self.draw)[1]
        return self._kept_remainder

    _remainder_of: Draw | Encoded | None = None

    def _taken_apart(self, draw: Draw | Encoded) -> tuple[Tensor, Tensor]:
        """What the axes say of a latent, weights (K,), and what they leave, (1, *latent_shape)."""
        axes = self.bundle.axes
        if isinstance(draw, Encoded):  # the sliders' own steps, so that nothing of the face is lost between them
            z = draw.latent(axes.mean.shape)
            weights = torch.tensor([_rounded(axes.weights(z)[0])])
            return weights[0], z - axes.latents(weights)
        z = self.bundle.priors[draw.prior].sample(1, torch.Generator().manual_seed(draw.seed))
        z = axes.mean + draw.spread * (z - axes.mean)
        weights = axes.weights(z)
        return weights[0], z - axes.latents(weights)


class Morph(_Scene):
    """Two faces and the way between them: `share` 0 is the first, 1 the second.

    `pictures` are the two originals, float32 (3, S, S) in [0, 1]; `spherical` chooses the arc instead of the line.
    At first the ends are the drawn faces number 1 and 2.
    """

    undone = ("pictures", "latents", "share", "spherical")

    def __init__(self, bundle: Bundle, decoder: FastDecoder | None = None):
        self.bundle, self.decoder = bundle, decoder or FastDecoder(bundle.vae)
        self.share, self.spherical, self.direction = 0.0, False, 1
        self.pictures, self.latents = [None, None], [None, None]
        self._past, self._changing = [], None
        self._draw_ends(1, 2)

    def move(self, share: float, spherical: bool) -> None:
        """Go to `share` of the way, along an arc or not. Going on along the same makes no further step for `undo`."""
        self._remember_unless(spherical)
        self.share, self.spherical = share, spherical

    def set_end(self, side: int, picture: Tensor) -> None:
        """Make `picture`, float (3, S, S) in [0, 1] of the model's size, the first (0) or second (1) face."""
        self.remember()
        self._set_end(side, picture)

    def draw_end(self, side: int, seed: int) -> None:
        """Take the drawn face number `seed` of the model's style, see `vaelib.drawn`, as one end."""
        self.set_end(side, drawn_face(self.bundle, seed))

    def draw_ends(self, *seeds: int) -> None:
        """Take two drawn faces, as `draw_end` takes one."""
        self.remember()
        self._draw_ends(*seeds)

    def reset(self) -> None:
        """Go back to the two faces of the beginning, to the first of them, along the line."""
        self.remember()
        self.share, self.spherical = 0.0, False
        self._draw_ends(1, 2)

    def _draw_ends(self, *seeds: int) -> None:
        for side, seed in enumerate(seeds):
            self._set_end(side, drawn_face(self.bundle, seed))

    def _set_end(self, side: int, picture: Tensor) -> None:
        with inference(self.bundle.vae):
            z = self.bundle.vae.encode(picture[None]).mean[0]
        self.pictures, self.latents = list(self.pictures), list(self.latents)
        self.pictures[side], self.latents[side] = picture, z

    def step(self, speed: float = 1.0) -> None:
        """One frame of the animation: 0.01·`speed` of the way, and back again from each end."""
        if not 0 <= self.share + MORPH_STEP * speed * self.direction <= 1:
            self.direction *= -1
        self.share = round(self.share + MORPH_STEP * speed * self.direction, 3)

    def latent(self) -> Tensor:
        return between(*self.latents, torch.tensor([self.share]), self.spherical)

    def reconstruction(self, side: int) -> Tensor:
        """What the model makes of one end, float32 (3, S, S) in [0, 1]."""
        return self.decoder(self.latents[side][None])[0]


def drawn_face(bundle: Bundle, seed: int) -> Tensor:
    """The drawn face number `seed` of the model's style and size, see `vaelib.drawn`: float32 (3, S, S) in [0, 1]."""
    style = "cartoon" if "cartoon" in bundle.card["faces"] else "anime"
    picture = draw_face(style, bundle.image_size, **sample_factors(style, seed))
    return to_float(torch.from_numpy(picture[None]))[0]


def _rounded(weights: Tensor) -> list[float]:
    """Weights (K,) as sliders have them: within ±3, in steps of 0.1."""
    return [round(weight, 1) for weight in weights.clamp(-LIMIT, LIMIT).tolist()]


def model_of(code: str) -> str:
    """The name of the model that a code is for; empty where it is no code."""
    return code.strip().partition(":")[2].rpartition(":")[0].rpartition(":")[0]


def read_face(content: bytes, bundle: Bundle) -> Tensor:
    """An uploaded picture file as `bundle`'s model takes it: float32 (3, S, S) in [0, 1].

    It is cropped and scaled as the pictures of the model's data set were (`vaelib.prepare`). Raises `ValueError` where
    it is no picture, damaged or unreasonably large.
    """
    layout = LAYOUTS.get(bundle.card["faces"])
    try:
        with open_picture(content) as image:
            face = to_face(image, bundle.image_size, layout.crop if layout else 1.0)
    except UnidentifiedImageError:
        raise ValueError(f"this file is no picture: choose one of {', '.join(FORMATS)}") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises all sorts of them for damaged files
        raise ValueError(f"this picture can't be read ({error}): choose another") from error
    return to_float(torch.from_numpy(np.array(face))[None])[0]


def to_file(picture: Image.Image, format: str = "PNG") -> bytes:
    """The bytes of a PNG or JPEG file."""
    file = BytesIO()
    # The JPEG keeps its colours at full resolution, so that nobody sees a difference on a face.
    options = {"compress_level": 1} if format == "PNG" else {"quality": 95, "subsampling": 0}
    picture.save(file, format, **options)
    return file.getvalue()


_WEIGHT_BASE = round(200 * LIMIT) + 1  # -3.00 to 3.00 in hundredths
_CHECK_LENGTH = 4


def _pack(digits: list[tuple[int, int]]) -> str:
    """Digits, each with the base it is counted in, as one number in URL-safe base 64."""
    number = 0
    for digit, base in digits:
        number = number * base + digit
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8 or 1)).decode().rstrip("=")


def _unpacked(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def _side_by_side(faces: Tensor) -> Image.Image:
    return to_pil_image(torch.cat(list(faces), dim=2))
