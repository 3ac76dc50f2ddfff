// The decoder of a VAE, one face at a time: batch norms folded into the convolutions, arithmetic in WebAssembly.
// The layers are those of `vaelib.model.Decoder`, the folding that of `vaelib.fast_decoding`.

import { count } from "./safetensors.js";

const EPSILON = 1e-5; // of PyTorch's batch norm
const SLOPE = 0.01; // of its LeakyReLU
const TILE = 8; // channels that the kernel computes at once
const TABLE_STEP = 4; // and pixels

/** A function from a latent, Float32Array (C·h·w), to a face, Uint8ClampedArray (side·side·4), RGBA. */
export async function makeDecoder(tensors, config, imageSize, kernel) {
  const { exports } = await WebAssembly.instantiate(kernel);
  const network = new Network(tensors, exports);
  const grid = imageSize / 2 ** config.depth;
  let picture = network.input(config.latent_channels, grid);
  const input = picture;
  picture = network.convolution(picture, "stem.0.weight", norm(tensors, "stem.1"));
  for (let stage = 0; stage < config.depth; stage++) {
    const name = `stages.${stage}`;
    picture = network.convolution(picture, `${name}.0.block.0.weight`, norm(tensors, `${name}.0.block.1`), picture);
    picture = network.transposed(picture, `${name}.1.weight`, norm(tensors, `${name}.2`));
  }
  const logits = network.convolution(picture, "head.weight", bias(tensors, "head.bias"));
  network.allocate();

  return (latent) => {
    network.write(input, latent);
    network.run();
    return network.pixels(logits);
  };
}

class Network {
  constructor(tensors, exports) {
    this.tensors = tensors;
    this.memory = exports.memory;
    this.convolve = exports.convolve;
    this.size = 0; // bytes of memory planned so far
    this.parts = []; // [place, numbers] to be written once there is memory
    this.calls = []; // arguments of the kernel, in order
  }

  /** A picture with a border of zeros, channels last and padded to a multiple of 4. */
  input(channels, side) {
    const stride = 4 * Math.ceil(channels / 4);
    return { channels, side, stride, row: (side + 2) * stride * 4, place: this.reserve((side + 2) ** 2 * stride * 4 + 16) };
  }

  convolution(from, name, { factor, offset, slope }, skip) {
    const [channels, , k] = this.check(name, [factor.length, from.channels, 3, 3]);
    const to = this.input(channels, from.side);
    const weights = this.pack(name, from, channels, 3, factor, (o, c, y, x) => ((o * from.channels + c) * k + y) * k + x);
    this.call(from, to, weights, offset, 3, pixels(from, to, 1, 0, 0, 0, 0), slope, skip);
    return to;
  }

  /** Stride 2, 4×4: output pixels of each parity of row and column see 2×2 input pixels. */
  transposed(from, name, { factor, offset, slope }) {
    this.check(name, [from.channels, factor.length, 4, 4]);
    const channels = factor.length, to = this.input(channels, 2 * from.side);
    for (const py of [0, 1]) {
      for (const px of [0, 1]) {
        const at = (o, c, y, x) => ((c * channels + o) * 4 + 3 - py - 2 * y) * 4 + 3 - px - 2 * x;
        const weights = this.pack(name, from, channels, 2, factor, at);
        this.call(from, to, weights, offset, 2, pixels(from, to, 2, py, px, py, px), slope);
      }
    }
    return to;
  }

  call(from, to, weights, offset, taps, table, slope, skip) {
    const padded = new Float32Array(TILE * Math.ceil(to.channels / TILE));
    padded.set(offset);
    const start = this.add(table);
    this.calls.push([
      start, start + table.byteLength, from.place, this.add(weights), this.add(padded), to.place,
      to.stride * 4, taps, taps * from.stride, from.row, slope, skip ? skip.place : 0,
    ]);
  }

  /** Weights as the kernel reads them, (tiles of 8 channels, rows, columns, channels in, 8), times each channel's factor. */
  pack(name, from, channels, taps, factor, at) {
    const { data } = this.tensors[name];
    const packed = new Float32Array(Math.ceil(channels / TILE) * taps * taps * from.stride * TILE);
    for (let o = 0; o < channels; o++) {
      for (let y = 0; y < taps; y++) {
        for (let x = 0; x < taps; x++) {
          const first = at(o, 0, y, x), step = at(o, 1, y, x) - first;
          let to = (((o - (o % TILE)) / TILE) * taps * taps + y * taps + x) * from.stride * TILE + (o % TILE);
          for (let c = 0, i = first; c < from.channels; c++, i += step, to += TILE) packed[to] = data[i] * factor[o];
        }
      }
    }
    return packed;
  }

  check(name, expected) {
    const shape = this.tensors[name]?.shape;
    if (String(shape) !== String(expected)) throw new Error(`${name} is (${shape}), expected (${expected})`);
    return shape;
  }

  reserve(bytes) {
    const place = this.size;
    this.size += 16 * Math.ceil(bytes / 16);
    return place;
  }

  add(numbers) {
    const place = this.reserve(numbers.byteLength);
    this.parts.push([place, numbers]);
    return place;
  }

  allocate() {
    this.memory.grow(Math.ceil(this.size / 65536));
    for (const [place, numbers] of this.parts) new numbers.constructor(this.memory.buffer, place, numbers.length).set(numbers);
    this.parts = [];
    this.tensors = null;
  }

  write({ channels, side, stride, place }, latent) {
    const numbers = new Float32Array(this.memory.buffer, place);
    for (let c = 0, i = 0; c < channels; c++)
      for (let y = 1; y <= side; y++) for (let x = 1; x <= side; x++) numbers[(y * (side + 2) + x) * stride + c] = latent[i++];
  }

  run() {
    for (const call of this.calls) this.convolve(...call);
  }

  pixels({ side, stride, place }) {
    const logits = new Float32Array(this.memory.buffer, place), rgba = new Uint8ClampedArray(side * side * 4);
    for (let y = 0, i = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const at = ((y + 1) * (side + 2) + x + 1) * stride;
        for (let c = 0; c < 3; c++) rgba[i++] = 255 / (1 + Math.exp(-logits[at + c]));
        rgba[i++] = 255;
      }
    }
    return rgba;
  }
}

/** For each pixel of the smaller picture where its taps begin and where it is written, in bytes; the last one repeated. */
function pixels(from, to, step, py, px, top, left) {
  const total = from.side ** 2, table = new Int32Array(2 * TABLE_STEP * Math.ceil(total / TABLE_STEP));
  for (let i = 0; i < table.length / 2; i++) {
    const y = Math.floor(Math.min(i, total - 1) / from.side), x = Math.min(i, total - 1) % from.side;
    table[2 * i] = 4 * from.stride * ((y + top) * (from.side + 2) + x + left);
    table[2 * i + 1] = 4 * to.stride * ((y * step + py + 1) * (to.side + 2) + x * step + px + 1);
  }
  return table;
}

/** A batch norm as a factor and an offset for each channel; a LeakyReLU follows. */
function norm(tensors, name) {
  const [weight, shift, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map(
    (part) => vector(tensors, `${name}.${part}`));
  const factor = weight.map((value, i) => value / Math.sqrt(variance[i] + EPSILON));
  return { factor, offset: shift.map((value, i) => value - mean[i] * factor[i]), slope: SLOPE };
}

/** No norm, no LeakyReLU. */
function bias(tensors, name) {
  const offset = vector(tensors, name);
  return { factor: offset.map(() => 1), offset, slope: 1 };
}

function vector(tensors, name) {
  const found = tensors[name];
  if (found?.shape.length !== 1) throw new Error(`it has no ${name}`);
  if (!found.data.every(Number.isFinite)) throw new Error(`${name} holds numbers that are not finite`);
  return found.data;
}
