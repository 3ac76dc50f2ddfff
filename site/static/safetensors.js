// Reads a safetensors file as it is: 8 bytes of length, a JSON header, raw numbers.

const READERS = {
  F32: (bytes) => new Float32Array(bytes),
  F16: (bytes) => Float32Array.from(new Uint16Array(bytes), (half) => halves()[half]),
  I8: (bytes) => new Int8Array(bytes),
  U8: (bytes) => new Uint8Array(bytes),
  I64: (bytes) => new BigInt64Array(bytes),
};
const SIZES = { F32: 4, F16: 2, I8: 1, U8: 1, I64: 8 };

/** {name: {shape, data}} of a file, an ArrayBuffer. Throws an Error that says what is wrong with a damaged one. */
export function readTensors(file) {
  if (file.byteLength < 8) throw new Error(`it has ${file.byteLength} bytes, too few for a header`);
  const length = Number(new DataView(file).getBigUint64(0, true));
  if (8 + length > file.byteLength) throw new Error("it ends within its header");
  let header;
  try {
    header = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, length)));
  } catch {
    throw new Error("its header is no JSON");
  }
  const tensors = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets: [start, end] } = entry;
    if (!READERS[dtype]) throw new Error(`${name} is of type ${dtype}`);
    if (end - start !== SIZES[dtype] * count(shape)) throw new Error(`${name} has another size than its shape says`);
    if (8 + length + end > file.byteLength) throw new Error(`it ends within ${name}`);
    tensors[name] = { shape, data: READERS[dtype](file.slice(8 + length + start, 8 + length + end)) };
  }
  return tensors;
}

/** The tensors with all weights as Float32Array: int8 times its scale, one for each entry of the first dimension. */
export function dequantised(tensors) {
  const whole = {};
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    if (name.endsWith(".scale")) continue;
    const scale = tensors[`${name}.scale`]?.data;
    if (data instanceof BigInt64Array) continue; // the counters of batch norms, which nothing reads
    const values = data instanceof Float32Array ? data : new Float32Array(data.length);
    if (values !== data) {
      if (scale?.length !== shape[0]) throw new Error(`${name} lacks a scale for each of ${shape[0]} channels`);
      const size = data.length / shape[0];
      for (let i = 0, at = 0; i < shape[0]; i++) for (const end = at + size; at < end; at++) values[at] = data[at] * scale[i];
    }
    whole[name] = { shape, data: values };
  }
  return whole;
}

export const count = (shape) => shape.reduce((product, side) => product * side, 1);

let table; // of all 65,536 half-precision numbers
function halves() {
  if (table) return table;
  table = new Float32Array(65536);
  for (let half = 0; half < 65536; half++) {
    const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
    if (exponent === 0) table[half] = sign * fraction * 2 ** -24;
    else table[half] = exponent === 31 ? (fraction ? NaN : sign * Infinity) : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return table;
}
