// A point in latent space from the weights of axes, as `vaelib.latents` and `vaelib.explorer_state` have it.

import { count, dequantised, readTensors } from "./safetensors.js";

export const LIMIT = 3; // weights go from -3 to 3 standard deviations
const LATENT_STEPS = 16; // to 1: the grid on which an encoded latent stands

/** The axes and attributes that models with one encoder share. */
export class Space {
  constructor(file, { attributes, shape, draws }) {
    const tensors = dequantised(readTensors(file));
    const data = (name) => tensors[name]?.data;
    this.mean = data("mean");
    this.directions = data("directions");
    this.scales = data("scales");
    this.attributes = data("attributes");
    this.attributeScales = data("attribute_scales") ?? [];
    this.rightAngles = data("right_angles");
    this.size = count(shape);
    this.axes = this.scales.length;
    this.names = [...this.scales.keys()].map((i) => `axis ${i + 1}`).concat(attributes);
    this.seeds = draws;
  }

  /** Latents drawn in advance from each prior. */
  addDraws(file) {
    this.drawn = dequantised(readTensors(file));
  }

  /** The latent at these weights, Float32Array. */
  latent({ weights, draw, orthogonal }) {
    const z = Float32Array.from(this.mean);
    this.#move(z, weights, this.scales, this.directions);
    if (this.attributes) {
      const directions = orthogonal ? this.rightAngles : this.attributes;
      this.#move(z, weights.slice(this.axes), this.attributeScales, directions);
    }
    return draw ? z.map((value, i) => value + this.takenApart(draw).rest[i]) : z;
  }

  /** What the axes say of a latent, drawn or encoded, `weights`, and what they leave, `rest`. */
  takenApart({ prior, seed, spread, steps }) {
    const key = `${prior} ${seed} ${spread} ${steps}`;
    if (this.apart?.key === key) return this.apart;
    if (steps) { // an encoded picture's: the sliders' own steps, so that nothing of the face is lost between them
      const rest = this.mean.map((mean, i) => steps[i] / LATENT_STEPS - mean);
      const weights = this.#weights(rest).map((weight) => rounded(clamped(weight), 1));
      return this.#keep(key, weights, rest);
    }
    if (!this.drawn) throw new Error("the draws are not loaded yet: try again in a moment");
    if (!(seed < this.seeds)) {
      throw new Error(`this face was drawn from ${prior} by PyTorch's random numbers (seed ${seed}), and this page has those ` +
        `of seeds 0 to ${this.seeds - 1} only: open the code in a notebook`);
    }
    const all = this.drawn[prior].data;
    const rest = this.mean.map((mean, i) => spread * (all[seed * this.size + i] - mean));
    return this.#keep(key, this.#weights(rest), rest);
  }

  #keep(key, weights, rest) {
    this.#move(rest, weights.map((weight) => -weight), this.scales, this.directions);
    return (this.apart = { key, weights, rest });
  }

  /** How far `z`, counted from the mean, lies along each axis. */
  #weights(z) {
    return Array.from(this.scales, (scale, k) => {
      let sum = 0;
      for (let i = 0; i < this.size; i++) sum += z[i] * this.directions[k * this.size + i];
      return sum / scale;
    });
  }

  #move(z, weights, scales, directions) {
    for (let k = 0; k < scales.length; k++) {
      const step = (weights[k] ?? 0) * scales[k];
      if (step) for (let i = 0; i < this.size; i++) z[i] += step * directions[k * this.size + i];
    }
  }
}

/** A latent `share` of the way from one to another: straight, or on an arc about the origin. See `vaelib.latents.between`. */
export function between(from, to, share, spherical) {
  const straight = from.map((value, i) => value + share * (to[i] - value));
  if (!spherical) return straight;
  const lengths = [Math.hypot(...from), Math.hypot(...to)];
  const cosine = from.reduce((sum, value, i) => sum + value * to[i], 0) / (lengths[0] * lengths[1]);
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  if (!(Math.sin(angle) > 1e-3)) return straight;
  const length = lengths[0] + share * (lengths[1] - lengths[0]);
  const parts = [Math.sin((1 - share) * angle) / lengths[0], Math.sin(share * angle) / lengths[1]];
  return from.map((value, i) => (length / Math.sin(angle)) * (parts[0] * value + parts[1] * to[i]));
}

/** A number from N(0, 1). */
export const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());

export const rounded = (value, digits) => Number(value.toFixed(digits)) + 0;
export const clamped = (value) => Math.min(LIMIT, Math.max(-LIMIT, value));
