// Decodes faces beside the page, so that the page never waits: {load: model} and {decode: name, latent, id} come in.

import { makeDecoder } from "./decoder.js";
import { dequantised, readTensors } from "./safetensors.js";

const decoders = new Map();
let kernel;

addEventListener("message", async ({ data }) => {
  try {
    if (data.load) {
      await load(data.load, data.url);
      postMessage({ ready: data.load.name });
    } else {
      const pixels = decoders.get(data.decode)(data.latent);
      postMessage({ id: data.id, pixels }, [pixels.buffer]);
    }
  } catch (error) {
    postMessage({ failed: data.load?.name ?? data.decode, id: data.id, error: error.message });
  }
});

async function load(model, url) {
  kernel ??= compiled();
  const file = await download(url, model);
  if (globalThis.crypto.subtle) { // absent where a page comes unencrypted from another machine
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", file));
    const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (hex !== model.sha256) throw new Error("the file is not what was published");
  }
  decoders.set(model.name, await makeDecoder(dequantised(readTensors(file)), model.config, model.image_size, await kernel));
}

async function compiled() {
  const answer = await fetch(new URL("kernel.wasm", import.meta.url));
  return WebAssembly.compile(await answer.arrayBuffer());
}

async function download(url, model) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`the server answers ${answer.status} for ${url}`);
  const file = new Uint8Array(model.bytes);
  let size = 0;
  for (const reader = answer.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (size + value.length > file.length) throw new Error(`it has more than ${model.bytes} bytes`);
    file.set(value, size);
    size += value.length;
    postMessage({ progress: size / model.bytes, name: model.name });
  }
  if (size < file.length) throw new Error(`it has ${size} bytes of ${model.bytes}`);
  return file.buffer;
}
