// Short texts that stand for faces, the same as those of `vaelib.explorer_state`: a code from a notebook opens here, and back.

import { LIMIT, rounded } from "./space.js";

const VERSION = "vae1";
const AXES = "axes", PICTURE = "picture"; // where no remainder came from a prior: none, or an encoded picture's
const BASE = BigInt(Math.round(200 * LIMIT) + 1); // -3.00 to 3.00 in hundredths
const CHECK_LENGTH = 4;
const SEEDS = 2n ** 32n, SPREADS = 256n;

/** The code of a face of the model called `name`. */
export function toCode(name, space, { weights, draw, orthogonal }) {
  const moved = weights.slice(space.axes).some((weight) => weight !== 0);
  let number = 0n;
  for (const weight of moved ? weights : weights.slice(0, space.axes)) number = number * BASE + BigInt(Math.round(100 * (weight + LIMIT)));
  for (const step of draw?.steps ?? []) number = number * 256n + BigInt(step & 255);
  if (draw && !draw.steps) number = (number * SEEDS + BigInt(draw.seed)) * SPREADS + BigInt(Math.round(10 * draw.spread));
  number = number * 3n + BigInt(moved ? 1 + Number(Boolean(orthogonal)) : 0);
  const head = `${VERSION}:${name}:${draw?.prior ?? AXES}`, body = toBase64(toBytes(number));
  return `${head}:${body}${check(head, body, space, moved)}`;
}

/** The name of the model that a code is for; empty where it is no code. */
export const modelOf = (code) => code.trim().split(":").slice(1, -2).join(":");

/** The face that a code stands for, {weights, draw, orthogonal}. Throws an Error that says what is wrong with it. */
export function fromCode(code, space, priors) {
  const parts = code.trim().split(":"), text = parts.pop(), prior = parts[parts.length - 1], head = parts.join(":");
  if (parts[0] !== VERSION || parts.length < 3 || !text) throw new Error(`"${code}" is no code of a face`);
  if (![AXES, PICTURE, ...priors].includes(prior)) throw new Error(`the code needs the prior "${prior}", which is not here`);
  const body = text.slice(0, -CHECK_LENGTH);
  let number = /^[\w-]+$/.test(body) ? fromBytes(fromBase64(body)) : null;
  if (number === null || text.slice(-CHECK_LENGTH) !== check(head, body, space, number % 3n !== 0n)) {
    throw new Error("the code is mistyped, or belongs to other weights: copy it again");
  }
  const take = (base) => {
    const digit = number % base;
    number /= base;
    return Number(digit);
  };
  const kind = take(3n);
  let draw = null;
  if (prior === PICTURE) {
    const steps = Int8Array.from({ length: space.size }, () => take(256n)).reverse();
    draw = { prior, steps };
  } else if (prior !== AXES) {
    const spread = take(SPREADS) / 10;
    draw = { prior, seed: take(SEEDS), spread };
  }
  if (kind === 2 && !space.rightAngles) throw new Error("the code needs axes at right angles, and there is no room for them");
  const weights = Array.from({ length: kind ? space.names.length : space.axes }, () => rounded(take(BASE) / 100 - LIMIT, 2)).reverse();
  return { weights: weights.concat(Array(space.names.length - weights.length).fill(0)), draw, orthogonal: kind === 2, kind };
}

function check(head, body, space, named) {
  const text = new TextEncoder().encode(`${head}:${body}:${named ? space.names.join("\n") : ""}`);
  const floats = new Float32Array([...space.mean, ...space.scales]);
  return toBase64(blake2b(new Uint8Array([...text, ...new Uint8Array(floats.buffer)]), 3));
}

function toBytes(number) {
  const hex = number.toString(16);
  return Uint8Array.from((hex.length % 2 ? `0${hex}` : hex).match(/../g), (byte) => parseInt(byte, 16));
}

const fromBytes = (bytes) => bytes.reduce((number, byte) => number * 256n + BigInt(byte), 0n);
const toBase64 = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

function fromBase64(text) {
  try {
    return [...atob(text.replaceAll("-", "+").replaceAll("_", "/"))].map((letter) => letter.charCodeAt(0));
  } catch {
    throw new Error("the code is mistyped: copy it again");
  }
}

// BLAKE2b, RFC 7693, without a key

const START = [
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n,
];
const ORDERS = [
  "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
  "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
].map((order) => [...order].map((digit) => parseInt(digit, 16)));
const COLUMNS = [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15], [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]];
const BLOCK = 128, ROUNDS = 12;

export function blake2b(message, length) {
  const blocks = Math.max(1, Math.ceil(message.length / BLOCK));
  const padded = new Uint8Array(blocks * BLOCK);
  padded.set(message);
  const words = new BigUint64Array(padded.buffer), state = BigUint64Array.from(START), v = new BigUint64Array(16);
  state[0] ^= 0x01010000n ^ BigInt(length);
  const turned = (value, bits) => BigInt.asUintN(64, (value >> bits) | (value << (64n - bits)));
  for (let block = 0; block < blocks; block++) {
    const last = block === blocks - 1;
    v.set(state);
    v.set(START, 8);
    v[12] ^= BigInt(last ? message.length : (block + 1) * BLOCK);
    if (last) v[14] = ~v[14];
    for (let round = 0; round < ROUNDS; round++) {
      const order = ORDERS[round % 10];
      COLUMNS.forEach(([a, b, c, d], i) => {
        for (const [word, first, second] of [[order[2 * i], 32n, 24n], [order[2 * i + 1], 16n, 63n]]) {
          v[a] = v[a] + v[b] + words[block * 16 + word];
          v[d] = turned(v[d] ^ v[a], first);
          v[c] = v[c] + v[d];
          v[b] = turned(v[b] ^ v[c], second);
        }
      });
    }
    for (let i = 0; i < 8; i++) state[i] ^= v[i] ^ v[i + 8];
  }
  return new Uint8Array(state.buffer).slice(0, length);
}
