// Figures that a hand moves. Each is a <figure> with a range input; its pictures were drawn when the page was made.

const PACE = 14; // frames of a film per second

const loaded = async (address) => {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
};

/** Ends when the element comes near the window: what a figure needs is fetched then. */
const near = (element) => new Promise((done) => {
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    done();
  }, { rootMargin: "50%" });
  observer.observe(element);
});

/** Puts a tile of a sheet on the whole of a canvas; alone, or its neighbours would show at its edges. */
function putTile(canvas, sheet, column, row, side) {
  const small = new OffscreenCanvas(side, side), context = canvas.getContext("2d");
  small.getContext("2d").drawImage(sheet, -column * side, -row * side);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

/** A film, whose frames lie side by side: plays until somebody takes hold of the slider. */
async function film(figure) {
  const slider = figure.querySelector("input"), frames = Number(figure.dataset.frames);
  const screens = [...figure.querySelectorAll("canvas")].map((canvas) => ({ context: canvas.getContext("2d"), address: canvas.dataset.film }));
  const small = document.createElement("canvas");
  for (const screen of screens) screen.sheet = await loaded(screen.address);
  function show() {
    const place = slider.valueAsNumber, frame = Math.floor(place);
    for (const { context, sheet } of screens) {
      const side = sheet.naturalHeight;
      small.width = small.height = side; // one frame alone, or its neighbours would show at its edges
      const mix = small.getContext("2d");
      mix.drawImage(sheet, -frame * side, 0);
      mix.globalAlpha = place - frame; // a moment between two frames
      mix.drawImage(sheet, -((frame + 1) % frames) * side, 0);
      context.imageSmoothingQuality = "high";
      context.drawImage(small, 0, 0, context.canvas.width, context.canvas.height);
    }
  }
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches, before;
  function play(now) {
    if (!playing) return;
    const share = before ? (Math.min(now - before, 100) / 1000) * PACE : 0;
    before = now;
    slider.value = (slider.valueAsNumber + share) % (frames - 1);
    show();
    requestAnimationFrame(play);
  }
  for (const event of ["input", "pointerdown", "keydown"]) slider.addEventListener(event, () => { playing = false; show(); });
  show();
  requestAnimationFrame(play);
}

/** A curtain between two pictures of one size: the upper is cut at the slider. */
function curtain(figure) {
  const slider = figure.querySelector("input"), upper = figure.querySelector(".upper");
  const show = () => { upper.style.clipPath = `inset(0 ${100 - 100 * slider.valueAsNumber}% 0 0)`; };
  slider.addEventListener("input", show);
  show();
}

/** A drawn face and a slider for each of three factors; a row of its sheet for each value of the first. */
async function factors(turned) {
  const canvas = turned.querySelector("canvas"), told = turned.querySelector("output"), { style } = turned.dataset;
  const hands = [...turned.querySelectorAll("input")], values = hands.map((hand) => JSON.parse(hand.dataset.values));
  let sheet;
  function show() {
    const [row, middle, last] = hands.map((hand) => hand.valueAsNumber);
    const columns = values[1].length * values[2].length, side = sheet.naturalWidth / columns;
    putTile(canvas, sheet, middle * values[2].length + last, row, side);
    const chosen = hands.map((hand, i) => {
      hand.ariaValueText = values[i][hand.valueAsNumber];
      return `${hand.name}=${JSON.stringify(values[i][hand.valueAsNumber])}`;
    });
    told.value = `draw_face("${style}", ${chosen.join(", ")})`;
  }
  await near(turned);
  sheet = await loaded(turned.dataset.sheet);
  for (const hand of hands) hand.addEventListener("input", show);
  show();
}

const number = (value, digits = 0) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");

/** The plane of two latents under VAEs of several σ: a mosaic of decoded places, and held-out faces over it. */
async function plane(figure) {
  const TOLD = {
    rate: (value) => `${number(value, 1)} nats`, distortion: (value) => `${number(value)} nats`,
    error: (value) => number(value, 3), inside: (value) => `${number(100 * value)} %`,
  };
  const slider = figure.querySelector("input"), field = figure.querySelector(".field"), mark = field.querySelector(".at");
  const [mosaic, face] = figure.querySelectorAll("canvas"), folder = new URL(figure.dataset.planes, location.href);
  await near(figure);
  const { tiles, reach, models } = await (await fetch(new URL("plane.json", folder))).json(), step = (2 * reach) / tiles;
  const lines = [...figure.querySelectorAll(".measure")].map((row) => {
    const values = models.map((model) => model[row.dataset.of]), low = Math.min(...values), span = Math.max(...values) - low;
    const points = values.map((value, i) => [4 + (92 * i) / (values.length - 1), 13 - (10 * (value - low)) / span]);
    row.querySelector("path").setAttribute("d", `M${points.join("L")}`);
    return { values, points, mark: row.querySelector("circle"), told: row.querySelector("output"), tell: TOLD[row.dataset.of] };
  });
  const sheets = [], at = [10, 4]; // the column and the row of the face
  let sheet;
  function point(column, row) {
    [column, row].forEach((place, i) => { at[i] = Math.max(0, Math.min(tiles - 1, Math.floor(place))); });
    at.forEach((place, i) => mark.setAttribute("xy"[i], place * step - reach));
    if (sheet) putTile(face, sheet, ...at, sheet.naturalWidth / tiles);
  }
  async function show() {
    const i = slider.valueAsNumber, { sigma, mosaic: name, cloud } = models[i];
    slider.ariaValueText = slider.nextElementSibling.value = sigma;
    sheets[i] ??= loaded(new URL(name, folder).href);
    const found = await sheets[i];
    if (slider.valueAsNumber !== i) return; // moved on meanwhile
    sheet = found;
    mosaic.getContext("2d").drawImage(sheet, 0, 0, mosaic.width, mosaic.height);
    for (const dots of field.querySelectorAll(".cloud")) dots.setAttribute("d", cloud.map(([x, y]) => `M${x},${-y}h0`).join(""));
    for (const { values, points, mark, told, tell } of lines) {
      ["cx", "cy"].forEach((name, axis) => mark.setAttribute(name, points[i][axis]));
      told.value = tell(values[i]);
    }
    point(...at);
  }
  for (const event of ["pointerdown", "pointermove"]) field.addEventListener(event, ({ clientX, clientY }) => {
    const { left, top, width, height } = field.getBoundingClientRect();
    point(((clientX - left) / width) * tiles, ((clientY - top) / height) * tiles);
  });
  field.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    point(at[0] + way[0], at[1] + way[1]);
  });
  slider.addEventListener("input", show);
  await show();
}

/** A film of a training, and where its curves are by then. */
async function training(figure) {
  const [LEFT, RIGHT, TOP, FOOT] = [4, 316, 24, 133];
  const slider = figure.querySelector("input"), canvas = figure.querySelector("canvas"), context = canvas.getContext("2d");
  const folder = new URL(figure.dataset.film, location.href);
  await near(figure);
  const { steps, curves } = await (await fetch(new URL("training.json", folder))).json();
  const sheet = await loaded(new URL("training.webp", folder).href), last = steps.at(-1), height = sheet.naturalHeight / (steps.length + 1);
  const panels = [...figure.querySelectorAll("svg")].map((panel) => {
    const { training: trained, "held out": held } = curves[panel.dataset.style], all = [...trained, ...held];
    const low = Math.min(...all), span = Math.max(...all) - low;
    const place = (step, cost) => [LEFT + ((step - 1) / (last - 1)) * (RIGHT - LEFT), FOOT - ((cost - low) / span) * (FOOT - TOP)];
    const path = (points) => `M${points.map((point) => point.map((value) => value.toFixed(1))).join("L")}`;
    const looks = held.map((cost, i) => place(steps[i], cost));
    panel.querySelector(".trained").setAttribute("d", path(trained.map((cost, i) => place(i + 1, cost))));
    panel.querySelector(".held").setAttribute("d", path(looks));
    return { looks, held, line: panel.querySelector("line.now"), mark: panel.querySelector("circle"), told: panel.querySelector(".told") };
  });
  function show() {
    const i = slider.valueAsNumber;
    slider.ariaValueText = slider.nextElementSibling.value = steps[i];
    context.imageSmoothingQuality = "high";
    [0, i + 1].forEach((row, k) => {
      context.drawImage(sheet, 0, row * height, sheet.naturalWidth, height, 0, (k * canvas.height) / 2, canvas.width, canvas.height / 2);
    });
    for (const { looks: { [i]: [x, y] }, held, line, mark, told } of panels) {
      for (const name of ["x1", "x2"]) line.setAttribute(name, x);
      mark.setAttribute("cx", x);
      mark.setAttribute("cy", y);
      told.textContent = `held out ${number(held[i])} nats`;
    }
  }
  slider.addEventListener("input", show);
  show();
}

/** A normal q moved by hand over a posterior with two peaks: x = z² + noise, as in lesson 02's curved decoder. */
function posterior(figure) {
  const X = 2.2, NOISE = 0.5, LEAST = -10; // nats at the foot of the bar
  const [FOOT, TOP] = [190, 30], [LEFT, RIGHT] = [10, 500], SEEN = 2.5;
  const grid = Array.from({ length: 3201 }, (_, i) => (i - 1600) / 200), step = grid[1] - grid[0];
  const logNormal = (value, mean, spread) => -0.5 * ((value - mean) / spread) ** 2 - Math.log(spread * Math.sqrt(2 * Math.PI));
  const sum = (values) => values.reduce((total, value) => total + value, 0) * step;
  const logJoint = grid.map((z) => logNormal(X, z * z, NOISE) + logNormal(z, 0, 1));
  const evidence = Math.log(sum(logJoint.map(Math.exp)));
  const [mean, spread] = ["mean", "spread"].map((name) => figure.querySelector(`[name=${name}]`));
  const height = (density) => FOOT - Math.min(density, 2) * 80;
  const path = (density) => grid.map((z, i) => [z, density[i]]).filter(([z]) => Math.abs(z) <= SEEN)
    .map(([z, value]) => `${(LEFT + ((z + SEEN) / (2 * SEEN)) * (RIGHT - LEFT)).toFixed(1)},${height(value).toFixed(1)}`).join("L");
  const closed = (density) => `M${LEFT},${FOOT}L${path(density)}L${RIGHT},${FOOT}Z`;
  figure.querySelector(".truth").setAttribute("d", closed(logJoint.map((value) => Math.exp(value - evidence))));
  function show() {
    const logQ = grid.map((z) => logNormal(z, mean.valueAsNumber, spread.valueAsNumber)), q = logQ.map(Math.exp);
    const elbo = sum(q.map((value, i) => (value ? value * (logJoint[i] - logQ[i]) : 0)));
    figure.querySelector(".q").setAttribute("d", `M${path(q)}`);
    const share = Math.max(0, (elbo - LEAST) / (evidence - LEAST)), bar = figure.querySelector(".bar");
    bar.setAttribute("y", FOOT - share * (FOOT - TOP));
    bar.setAttribute("height", share * (FOOT - TOP));
    const told = (value) => value.toFixed(2).replace("-", "−");
    figure.querySelector("output").value = `ELBO ${told(elbo)}, ceiling ${told(evidence)}, gap ${told(evidence - elbo)} nats`;
  }
  for (const hand of [mean, spread]) hand.addEventListener("input", show);
  show();
}

/** Faces from each kind of noise, decoded in the page by the smallest model; its weights are fetched at the first press. */
async function noise(figure) {
  const folder = new URL(figure.dataset.models, location.href), get = (name) => fetch(new URL(name, folder));
  const { models: [model], spaces } = await (await get("models.json")).json(), { priors, draws } = spaces[model.space];
  const screens = [...figure.querySelectorAll("canvas")].map((canvas) => canvas.getContext("2d")), told = figure.querySelector("output");
  let ready;
  async function load() {
    told.value = `Loading ${model.name}, ${(model.bytes / 1e6).toFixed(1)} MB…`;
    const [{ Client }, { readTensors, dequantised }] = await Promise.all([import("./client.js"), import("./safetensors.js")]);
    const client = new Client(folder, () => {}), file = await (await get(`${model.space}-draws.safetensors`)).arrayBuffer();
    await client.load(model);
    return { client, drawn: dequantised(readTensors(file)) };
  }
  async function show(prior) {
    ready ??= load();
    const { client, drawn } = await ready, size = drawn[prior].data.length / draws;
    told.value = "";
    for (const context of screens) {
      const seed = Math.floor(Math.random() * draws);
      const face = await createImageBitmap(await client.decode(model, drawn[prior].data.slice(seed * size, (seed + 1) * size)));
      context.imageSmoothingQuality = "high";
      context.drawImage(face, 0, 0, context.canvas.width, context.canvas.height);
    }
  }
  figure.querySelector(".hands").append(...priors.map((prior) => {
    const button = document.createElement("button");
    button.textContent = prior;
    button.className = "button small";
    button.addEventListener("click", () => show(prior).catch((error) => {
      ready = undefined;
      told.value = error.message;
    }));
    return button;
  }));
}

for (const figure of document.querySelectorAll(".noise")) noise(figure);
for (const figure of document.querySelectorAll(".posterior")) posterior(figure);
for (const figure of document.querySelectorAll(".morphing")) film(figure);
for (const figure of document.querySelectorAll(".curtain")) curtain(figure);
for (const turned of document.querySelectorAll(".turned")) factors(turned);
for (const figure of document.querySelectorAll(".plane")) plane(figure);
for (const figure of document.querySelectorAll(".training")) training(figure);
