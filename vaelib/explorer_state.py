"""What the explorer knows and does, without a browser: a point in latent space, a morph, and the pictures of both.

state = ExplorerState(vaelib.load_pretrained("drawn-anime"))
state.randomize(torch.Generator().manual_seed(0))
png = state.render(size=512)
code = state.code                       # a short text, from which `restore` makes the very face again
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from io import BytesIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from vaelib.asking import Questions
from vaelib.drawn import draw_face, sample_factors
from vaelib.explorer_codes import AXES, PICTURE, Draw, Encoded, Number, read_code, write_code
from vaelib.faces import to_float
from vaelib.fast_decoding import FastDecoder
from vaelib.latents import NamedAxes, PCAAxes, between
from vaelib.model import inference
from vaelib.pictures import FORMATS, open_picture, to_face
from vaelib.preparing import LAYOUTS
from vaelib.pretrained import Bundle

LIMIT = 3.0  # weights go from -3 to 3 σ
ANIMATION_STEP = 0.05  # per frame and axis
MORPH_STEP = 0.01  # of the way, per frame
STRIP_FACES = 5
UNDO_STEPS = 200
SEEDS = 1_000_000  # that Randomize draws from: few digits, to be typed
FIRST_SEED = 2  # of the face that the explorer opens with
VARIATION = 0.35  # of the way towards another draw, for a face like this one
OLD_ATTRIBUTES = 12  # as many were shown when codes began with vae1


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


class ExplorerState(_Scene):
    """A point in a bundle's latent space, and the face that stands there.

    `weights` holds a float from -3 to 3 for each of `names`: first the bundle's PCA axes, in standard deviations from
    the mean, then those of the `attributes` that are numbers, at right angles to each other if `orthogonal`. `limits`
    are the weights, low and high, between which the faces of the data lie. `menus` lists the choices of the other
    attributes by label, and `chosen` the choice by label where another is wanted than the face has. At first all are
    0, and nothing is chosen: the mean face.

    `locked` holds the indices and the labels that `randomize` and `step` leave alone; the attributes keep at right
    angles to `kept_off`, some of them. `prior` ("axes" or a name of `bundle.priors`) and `spread` (1 as it comes, 0 the
    mean face) say how `randomize` draws; `draw` tells where the present face's remainder, which no axis describes, came
    from, a prior or a picture; None: there is none. `directions` holds the way in which each PCA weight moves when
    animated, 1 or -1.
    """

    undone = ("weights", "chosen", "draw", "spread", "orthogonal", "kept_off")

    def __init__(self, bundle: Bundle, attributes: NamedAxes | None = None, name: str | None = None):
        self.bundle = bundle
        self.name = name or bundle.name or bundle.card["faces"]
        self.decoder = FastDecoder(bundle.vae)
        self.directions = [1 if axis % 2 == 0 else -1 for axis in range(len(bundle.axes))]
        self.prior, self.spread = AXES, 1.0
        self.use(attributes)

    def use(self, attributes: NamedAxes | None) -> None:
        """Take these attributes instead of those before, and start again at the mean face."""
        self.attributes, self.orthogonal = attributes, False
        self.menus = attributes.swaps.menus if attributes and attributes.swaps else {}
        names = [name for name in attributes.names if name.partition("=")[0] not in self.menus] if attributes else []
        self._numbers = attributes.pick(*names) if names else None
        fits = names and len(names) <= self._numbers.directions[0].numel()
        self._at_right_angles = self._numbers.orthogonal() if fits else None
        self.names = [f"axis {number}" for number in range(1, len(self.bundle.axes) + 1)] + names
        old = first_attributes(attributes).names if attributes else ()
        self._names_in_vae1 = [*self.names[: len(self.bundle.axes)], *old]
        self.limits = _limits(self.bundle.axes) + (_limits(self._numbers) if names else [])
        self.weights, self.draw = [0.0] * len(self.names), None
        self.chosen: dict[str, str] = {}
        self.locked: set[int | str] = set()
        self.kept_off: frozenset[int | str] = frozenset()
        self._past, self._changing = [], None

    def begin(self) -> None:
        """Stand at a face drawn from the flow, if the bundle has one."""
        if "flow" in self.bundle.priors:
            self.prior = "flow"
            self.go_to(FIRST_SEED)
            self._past = []

    def follow(self, other: "ExplorerState") -> None:
        """Show the latent of another model's state. Raises `ValueError` unless the two have the same latents."""
        mine, theirs = self.bundle.axes, other.bundle.axes
        if mine.directions.shape != theirs.directions.shape or not torch.equal(mine.directions, theirs.directions):
            raise ValueError(f"{self.name!r} and {other.name!r} have latents of their own: choose one as a model")
        self.use(other.attributes)
        vars(self).update(
            {name: value for name, value in vars(other).items() if name not in ("bundle", "name", "decoder")}
        )

    @property
    def can_be_orthogonal(self) -> bool:
        """Whether there are attributes with sliders, and no more than the latent space has dimensions."""
        return self._at_right_angles is not None

    def move(self, index: int, weight: float) -> None:
        """Set one weight. Moving the same again makes no further step for `undo`."""
        self._remember_unless(index)
        self.weights = [*self.weights[:index], weight, *self.weights[index + 1 :]]

    def choose(self, label: str, choice: str | None) -> None:
        """Take `choice` for a label of `menus`, or None: what the face has."""
        self.remember()
        chosen = self.chosen | {label: choice}
        self.chosen = {label: choice for label, choice in chosen.items() if choice}

    def keep_off(self, kept_off: Iterable[int | str]) -> None:
        """Keep the attributes, but these, at right angles to these indices and labels."""
        self.remember()
        self.kept_off = frozenset(kept_off)

    def rename(self, which: int | str, name: str) -> None:
        """Name an axis, by its index, or a label of `menus`. Raises `ValueError` for no name, or one that is taken."""
        name = name.strip()
        if not name or "=" in name or name in {*self.names, *self.menus}:
            raise ValueError(f"got the name {name!r}, expected one that no other axis has, without =")
        if isinstance(which, str):
            new = tuple(_relabelled(each, which, name) for each in self.attributes.names)
            self.attributes = replace(self.attributes, names=new, swaps=self.attributes.swaps.renamed(which, name))
            self.menus = self.attributes.swaps.menus
            self.chosen = {name if label == which else label: choice for label, choice in self.chosen.items()}
            self.locked = {name if each == which else each for each in self.locked}
            self.kept_off = frozenset(name if each == which else each for each in self.kept_off)
            self._past = []
            return
        if which >= len(self.bundle.axes):
            old = self.names[which]
            new = tuple(name if each == old else each for each in self.attributes.names)
            self.attributes = replace(self.attributes, names=new)
        self.names = [*self.names[:which], name, *self.names[which + 1 :]]

    def reset(self) -> None:
        """Go to the mean face: every weight 0 and nothing chosen, locked or not."""
        self.remember()
        self.weights, self.chosen, self.draw = [0.0] * len(self.names), {}, None

    def randomize(self, generator: torch.Generator | None = None) -> None:
        """`go_to` a seed, and every direction by a coin."""
        self.go_to(int(torch.randint(SEEDS, (), generator=generator)))
        coins = torch.randint(2, (len(self.bundle.axes),), generator=generator)
        self.directions = (2 * coins - 1).tolist()

    def go_to(self, seed: int) -> None:
        """Draw the face number `seed`, from 0 to 2³² - 1, from `prior`, `spread` times as far from the mean.

        With "axes", each PCA weight comes from N(0, 1); with a prior, from where its latent lies on the axes. Weights
        are rounded to 0.1 and clipped to ±3; attributes go to 0, or as the face has it; what is locked stays.
        """
        if not 0 <= seed < 2**32:
            raise ValueError(f"got the seed {seed}, expected a whole number from 0 to {2**32 - 1}")
        draw = Draw(self.prior, seed, self.spread)
        before, chosen = self.weights, self.chosen
        self.take(draw)
        self.weights = [before[i] if i in self.locked else weight for i, weight in enumerate(self.weights)]
        self.chosen = {label: choice for label, choice in chosen.items() if label in self.locked}

    def spread_out(self, spread: float) -> None:
        """Draw with this `spread` from now on, and the present face too, if it was drawn: with the same noise."""
        if not isinstance(self.draw, Draw):
            self.spread = spread
        else:
            self._remember_unless("spread")
            self.spread = spread
            before, _ = self._taken_apart(self.draw)
            self.draw = replace(self.draw, spread=spread)
            after, _ = self._taken_apart(self.draw)
            moved = [new - old for new, old in zip(_rounded(after), _rounded(before), strict=True)]
            self.weights = [
                weight if i in self.locked or i >= len(moved) else round(min(max(weight + moved[i], -LIMIT), LIMIT), 2)
                for i, weight in enumerate(self.weights)
            ]

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
        self.draw, self.chosen = draw, {}
        if isinstance(draw, Draw):
            self.spread = draw.spread
        weights, _ = self._taken_apart(draw)
        self.weights = _rounded(weights) + [0.0] * (len(self.names) - len(weights))

    def draws(self, count: int, generator: torch.Generator | None = None) -> list[Draw]:
        """`count` draws such as `randomize` makes."""
        seeds = torch.randint(SEEDS, (count,), generator=generator).tolist()
        return [Draw(self.prior, seed, self.spread) for seed in seeds]

    def variations(self, count: int, generator: torch.Generator | None = None) -> list[Encoded]:
        """`count` latents near the present one, each some way towards another draw, and as far from the mean."""
        mean, z = self.bundle.axes.mean, self.latent()[0]
        others = [self._latent_of(draw) for draw in self.draws(count, generator)]
        keep = (1 - VARIATION**2) ** 0.5
        return [Encoded.of(mean + keep * (z - mean) + VARIATION * (other[0] - mean)) for other in others]

    @property
    def questions(self) -> Questions | None:
        """What the flow can be asked for, if it has learned labels."""
        return getattr(self.bundle.priors.get("flow"), "questions", None)

    def ask(
        self, count: int, asked: Mapping[str, object], guidance: float, generator: torch.Generator | None = None
    ) -> list[Encoded]:
        """`count` latents of faces as `asked`, drawn from the flow: see `ConditionalFlow.sample`."""
        flow = self.bundle.priors["flow"]
        return [Encoded.of(z) for z in flow.sample(count, generator, asked, guidance)]

    def faces(self, draws: list[Draw | Encoded]) -> list[Image.Image]:
        """The faces of latents that were drawn or encoded, of the model's size."""
        return [to_pil_image(face) for face in self.decoder(torch.cat([self._latent_of(draw) for draw in draws]))]

    def step(self, speed: float = 1.0) -> None:
        """One frame of the animation: each PCA weight moves 0.05·`speed` in its direction and bounces at its limits."""
        weights, directions = list(self.weights), list(self.directions)
        for axis, weight in enumerate(weights[: len(directions)]):
            if axis in self.locked:
                continue
            (low, high), ahead = self.limits[axis], weight + ANIMATION_STEP * speed * directions[axis]
            if (directions[axis] > 0 and ahead > high) or (directions[axis] < 0 and ahead < low):
                directions[axis] *= -1
            weights[axis] = round(weight + ANIMATION_STEP * speed * directions[axis], 2)  # no drift off the grid
        self.weights, self.directions = weights, directions

    def latent(self) -> Tensor:
        """The latent at `weights`, float32 (1, *latent_shape). Raises `ValueError` for a wrong number of weights."""
        z = self._axes_part(torch.tensor([self.weights]))
        return self._edited(z + self._remainder if self.draw else z, torch.tensor([self.weights]), self.chosen)

    def strips(self, side: int = 32, indices: Iterable[int] | None = None) -> list[Image.Image]:
        """For each axis a picture of what it does: five faces side by side, from limit to limit with all else 0."""
        rows = []
        for index in range(len(self.names)) if indices is None else indices:
            weights = torch.zeros(STRIP_FACES, len(self.names))
            weights[:, index] = torch.linspace(*self.limits[index], STRIP_FACES)
            rows.append(self._edited(self._axes_part(weights), weights, {}))
        return self._side_by_side(rows, side)

    def menu_strip(self, label: str, side: int = 32) -> Image.Image:
        """The mean face with each choice of a label in turn, side by side."""
        z, weights = self.bundle.axes.mean[None], torch.zeros(1, len(self.names))
        rows = [self._edited(z, weights, {label: choice}) for choice in self.menus[label]]
        return self._side_by_side([torch.cat(rows)], side)[0]

    def _side_by_side(self, rows: list[Tensor], side: int) -> list[Image.Image]:
        faces = self.decoder(torch.cat(rows)) if rows else torch.empty(0)
        faces = torch.nn.functional.interpolate(faces, size=(side, side), mode="area") if rows else faces
        return [to_pil_image(torch.cat(list(row), dim=2)) for row in faces.split([len(row) for row in rows])]

    def named(self) -> NamedAxes | None:
        """The attributes, with the names that they have now, and the PCA axes that were given one; None without any."""
        axes = self.bundle.axes
        given = [axis for axis in range(len(axes)) if self.names[axis] != f"axis {axis + 1}"]
        if not given:
            return self.attributes
        limits = axes.limits[given] if axes.limits is not None else torch.tensor([[-LIMIT, LIMIT]] * len(given))
        names = tuple(self.names[axis] for axis in given)
        mine = NamedAxes(names, axes.directions[given], axes.scales[given], limits)
        return self.attributes.joined(mine) if self.attributes else mine

    # ------------------------------------------------------------------------------------------------- codes

    @property
    def code(self) -> str:
        """A short text that stands for this face: `restore` makes it again, wherever the same model is loaded."""
        count, number = len(self.bundle.axes), Number()
        edited = bool(self.chosen or self.kept_off or any(self.weights[count:]))
        first_version = not edited or (self._as_in_vae1 and not self.kept_off)
        for weight in self.weights if edited and first_version else self.weights[:count]:
            number.push(_to_digit(weight), WEIGHT_BASE)
        prior = AXES
        if self.draw:
            prior = PICTURE if isinstance(self.draw, Encoded) else self.draw.prior
            number.push_draw(self.draw)
        if first_version:
            number.push(edited + (edited and self.orthogonal), 3)  # without attributes, as fitted, at right angles
            return write_code("vae1", self.name, prior, number.value, self._belongs_to("vae1", edited))
        for weight in self.weights[count:]:
            if weight:
                number.push(_to_digit(weight), WEIGHT_BASE)
        for weight in self.weights[count:]:
            number.push(weight != 0, 2)
        for label, choices in self.menus.items():
            number.push(1 + choices.index(self.chosen[label]) if label in self.chosen else 0, 1 + len(choices))
        for each in (*range(len(self.names)), *self.menus):
            number.push(each in self.kept_off, 2)
        number.push(self.orthogonal, 2)
        return write_code("vae2", self.name, prior, number.value, self._belongs_to("vae2", edited))

    @property
    def _as_in_vae1(self) -> bool:
        """Whether the attributes are as they were when codes began with vae1: sliders only, and at most twelve."""
        return not self.menus and len(self.names) - len(self.bundle.axes) <= OLD_ATTRIBUTES

    def restore(self, code: str) -> None:
        """Go to the face that `code` stands for. Raises `ValueError`, and stays, where it is none for this model."""
        version, name, prior, value = read_code(code)
        if version not in ("vae1", "vae2") or not name or code.strip().endswith(":"):
            raise ValueError(f"got {code!r}, expected a code such as {self.code}")
        if name not in (self.name, self.bundle.card["faces"]):  # by which a single model was called before
            raise ValueError(f"the code is for the model {name!r}, and this is {self.name!r}: choose that model first")
        if prior not in (AXES, PICTURE, *self.bundle.priors):
            known = ", ".join([AXES, *self.bundle.priors])
            raise ValueError(f"the code needs the prior {prior!r}, and {name!r} has {known}: update vaelib")
        number = Number(value or 0)
        kind = number.pop(3) if version == "vae1" else 1
        if (
            value is None
            or write_code(version, name, prior, value, self._belongs_to(version, kind > 0)) != code.strip()
        ):
            raise ValueError(
                f"the code {code!r} is mistyped, or belongs to other weights or attributes of {name!r}: copy it again"
            )
        if version == "vae2":
            self._restore_vae2(number, prior)
        else:
            self._restore_vae1(number, prior, kind)

    def _restore_vae2(self, number: Number, prior: str) -> None:
        count, everything = len(self.bundle.axes), (*range(len(self.names)), *self.menus)
        orthogonal, chosen, weights = bool(number.pop(2)), {}, [0.0] * len(self.names)
        kept_off = frozenset(each for each in reversed(everything) if number.pop(2))
        for label, choices in reversed(self.menus.items()):
            if place := number.pop(1 + len(choices)):
                chosen[label] = choices[place - 1]
        moved = [index for index in reversed(range(count, len(self.names))) if number.pop(2)]
        for index in moved:
            weights[index] = _from_digit(number.pop(WEIGHT_BASE))
        draw = number.pop_draw(prior, self.bundle.axes.mean.numel())
        for index in reversed(range(count)):
            weights[index] = _from_digit(number.pop(WEIGHT_BASE))
        self.remember()
        vars(self).update(weights=weights, draw=draw, chosen=chosen, orthogonal=orthogonal, kept_off=kept_off)
        self.locked |= kept_off

    def _restore_vae1(self, number: Number, prior: str, kind: int) -> None:
        count, attributes = len(self.bundle.axes), first_attributes(self.attributes) if kind else None
        draw = number.pop_draw(prior, self.bundle.axes.mean.numel())
        weights = [_from_digit(number.pop(WEIGHT_BASE)) for _ in range(count + len(attributes or ()))][::-1]
        if kind and not self._as_in_vae1:  # choices had sliders then: the face comes back as if it was encoded
            z = self._axes_part(torch.tensor([weights]))
            attributes = attributes.orthogonal() if kind == 2 else attributes
            z = z + attributes.offsets(torch.tensor([weights[count:]]))
            return self.take(Encoded.of((z + self._taken_apart(draw)[1] if draw else z)[0]))
        if kind == 2 and not self.can_be_orthogonal:
            raise ValueError(
                f"the code needs axes at right angles, and {len(self.attributes)} have no room for that here"
            )
        self.remember()
        self.draw, self.chosen, self.kept_off = draw, {}, frozenset()
        if kind:
            self.orthogonal = kind == 2
        self.weights = weights + [0.0] * (len(self.names) - len(weights))

    def _belongs_to(self, version: str, attributes: bool) -> bytes:
        """What a code is of no use without: the axes, and the attributes that it goes by."""
        axes = np.concatenate([self.bundle.axes.mean.flatten(), self.bundle.axes.scales]).astype("<f4").tobytes()
        if not attributes:
            return axes
        if version == "vae1":
            return "\n".join(self._names_in_vae1).encode() + axes
        tensors = [self.attributes.directions.flatten(), self.attributes.scales] if self.attributes else []
        return axes + b"".join(tensor.numpy().astype("<f4").tobytes() for tensor in tensors)

    # ----------------------------------------------------------------------------------------------- latents

    def _axes_part(self, weights: Tensor) -> Tensor:
        return self.bundle.axes.latents(weights[:, : len(self.bundle.axes)])

    def _edited(self, z: Tensor, weights: Tensor, chosen: dict[str, str]) -> Tensor:
        """Latents `z` (B, *latent_shape) with the attributes at `weights` (B, K), and what is chosen."""
        if weights.shape[1] != len(self.names):
            raise ValueError(f"got weights of shape {tuple(weights.shape)}, expected (batch, {len(self.names)})")
        if not self.attributes:
            return z
        start = self._with(z, weights, chosen, lambda each: each in self.kept_off)
        end = self._with(start, weights, chosen, lambda each: each not in self.kept_off)
        if not self.kept_off:
            return end
        step = (end - start).flatten(1)
        kept_off = self._kept_off_basis()
        return start + (step - step @ kept_off.T @ kept_off).reshape(z.shape)

    def _with(self, z: Tensor, weights: Tensor, chosen: dict[str, str], some) -> Tensor:
        count = len(self.bundle.axes)
        if numbers := self._at_right_angles if self.orthogonal else self._numbers:
            mask = torch.tensor([some(index) for index in range(count, len(self.names))])
            z = z + numbers.offsets(weights[:, count:] * mask)
        for label in self.menus:
            if label in chosen and some(label):
                z = self.attributes.swaps.swap(z, label, chosen[label])
        return z

    def _kept_off_basis(self) -> Tensor:
        """Orthonormal rows that span the directions of `kept_off`."""
        count, rows = len(self.bundle.axes), []
        numbers = self._at_right_angles if self.orthogonal else self._numbers
        for each in self.kept_off:
            if isinstance(each, str):
                names = [name for name in self.attributes.names if name.startswith(f"{each}=")]
                rows.append(self.attributes.pick(*names).directions)
            elif each < count:
                rows.append(self.bundle.axes.directions[each, None])
            else:
                rows.append(numbers.directions[each - count, None])
        _, sizes, basis = torch.linalg.svd(torch.cat(rows).flatten(1), full_matrices=False)
        return basis[sizes > 1e-3 * sizes[0]]

    @property
    def _remainder(self) -> Tensor:
        if self._remainder_of != self.draw:  # kept: sliders move far more often than faces are drawn
            self._remainder_of, self._kept_remainder = self.draw, self._taken_apart(self.draw)[1]
        return self._kept_remainder

    _remainder_of: Draw | Encoded | None = None

    def _taken_apart(self, draw: Draw | Encoded) -> tuple[Tensor, Tensor]:
        """What the axes say of a latent, weights (K,), and what they leave, (1, *latent_shape)."""
        axes, z = self.bundle.axes, self._latent_of(draw)
        weights = axes.weights(z)
        if isinstance(draw, Encoded):  # the sliders' own steps, so that nothing of the face is lost between them
            weights = torch.tensor([_rounded(weights[0])])
        elif draw.prior == AXES:
            return weights[0], torch.zeros_like(z)
        return weights[0], z - axes.latents(weights)

    def _latent_of(self, draw: Draw | Encoded) -> Tensor:
        axes = self.bundle.axes
        if isinstance(draw, Encoded):
            return draw.latent(axes.mean.shape)
        generator = torch.Generator().manual_seed(draw.seed)
        if draw.prior == AXES:
            return axes.latents(draw.spread * torch.randn(1, len(axes), generator=generator))
        return axes.mean + draw.spread * (self.bundle.priors[draw.prior].sample(1, generator) - axes.mean)


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


def first_attributes(attributes: NamedAxes | None) -> NamedAxes | None:
    """The twelve that move latents most, choices too: those that codes of the first version know."""
    return attributes and attributes.pick(*attributes.names[:OLD_ATTRIBUTES])


def _relabelled(column: str, label: str, new: str) -> str:
    """The name of a choice's column, "hair=long", where the label has a new name."""
    return f"{new}={column.partition('=')[2]}" if column.startswith(f"{label}=") else column


def _limits(axes: PCAAxes | NamedAxes) -> list[tuple[float, float]]:
    """The weights of the last faces at each end, on the sliders' steps, and 0 between; ±3 where they are unknown."""
    if axes.limits is None:
        return [(-LIMIT, LIMIT)] * len(axes)
    steps = 10 * axes.limits.clamp(-LIMIT, LIMIT)
    low, high = steps[:, 0].clamp(max=0).floor() / 10, steps[:, 1].clamp(min=0).ceil() / 10
    return [(round(a, 1), round(b, 1)) for a, b in zip(low.tolist(), high.tolist(), strict=True)]


WEIGHT_BASE = round(200 * LIMIT) + 1  # -3.00 to 3.00 in hundredths


def _to_digit(weight: float) -> int:
    return round(100 * (weight + LIMIT))


def _from_digit(digit: int) -> float:
    return round(digit / 100 - LIMIT, 2)


def _rounded(weights: Tensor) -> list[float]:
    """Weights (K,) as sliders have them: within ±3, in steps of 0.1."""
    return [round(weight, 1) for weight in weights.clamp(-LIMIT, LIMIT).tolist()]


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
