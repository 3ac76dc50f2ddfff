// The page's end of the worker: loads models, decodes latents, and keeps no more than one face on its way for the stage.

export class Client {
  #worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  #waiting = new Map(); // promises of faces, by number, and of models, by name
  #next = 0;
  #loading = new Map();

  constructor(folder, onProgress) {
    this.folder = folder;
    this.#worker.addEventListener("message", ({ data }) => {
      if ("progress" in data) return onProgress(data.name, data.progress);
      const key = data.ready ?? data.id ?? data.failed;
      const { resolve, reject } = this.#waiting.get(key);
      this.#waiting.delete(key);
      if (data.error) reject(new Error(data.error));
      else resolve(data.pixels);
    });
  }

  /** Resolves when the model's faces can be decoded; rejects, with what is wrong, where its weights are damaged. */
  load(model) {
    if (!this.#loading.has(model.name)) {
      const url = new URL(`${model.name}.safetensors?${model.sha256.slice(0, 12)}`, this.folder).href;
      this.#worker.postMessage({ load: model, url });
      const loaded = this.#promise(model.name).catch((error) => {
        this.#loading.delete(model.name);
        throw new Error(`the weights of ${model.name} are damaged or out of reach (${error.message}): reload the page`);
      });
      this.#loading.set(model.name, loaded);
    }
    return this.#loading.get(model.name);
  }

  /** The face at a latent, as ImageData. */
  async decode(model, latent) {
    const id = this.#next++;
    this.#worker.postMessage({ decode: model.name, latent, id });
    return new ImageData(await this.#promise(id), model.image_size);
  }

  #promise(key) {
    return new Promise((resolve, reject) => this.#waiting.set(key, { resolve, reject }));
  }
}
