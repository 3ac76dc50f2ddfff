// The explorer's page: sliders, buttons and keys on one side, the worker that decodes on the other.

import { Client } from "./client.js";
import { fromCode, modelOf, toCode } from "./codes.js";
import { between, clamped, normal, rounded, Space } from "./space.js";

const STEP = 0.05; // of the animation, per frame of 20 ms and axis
const MORPH_STEP = 0.01;
const FRAME = 20;
const UNDO_STEPS = 200;
const SAVED = 512; // pixels a side
const AXES = "axes";

const find = (id) => document.getElementById(id);
const main = document.querySelector("main");
const index = new URL(main.dataset.models, location.href);
const stage = find("face").getContext("2d"), small = document.createElement("canvas");
const client = new Client(index, showProgress);

let catalogue, model, space, state;
const spaces = new Map(); // name -> {space, state}; models with one encoder share the face
let rows = []; // of axes and attributes: {input, output, lock}
let tab = "axes", animation = 0, live = false;
const morph = { ends: [null, null], share: 0, spherical: false, direction: 1 };

class State {
  constructor(space) {
    this.weights = space.names.map(() => 0);
    this.draw = null;
    this.orthogonal = false;
    this.locked = new Set();
    this.directions = Array.from({ length: space.axes }, (_, axis) => (axis % 2 ? -1 : 1));
    this.past = [];
    this.changing = null;
  }

  /** Make the present face the one that `undo` goes back to, unless it is the same slider again that moves. */
  remember(changing = null) {
    if (changing !== null && changing === this.changing) return;
    this.changing = changing;
    this.past = [...this.past.slice(1 - UNDO_STEPS), { weights: this.weights, draw: this.draw, orthogonal: this.orthogonal }];
  }

  undo() {
    this.changing = null;
    Object.assign(this, this.past.pop());
  }
}

// ---------------------------------------------------------------------------------------------------- loading

async function open(name, code) {
  stop();
  model = catalogue.models.find((each) => each.name === name);
  live = false;
  delete main.dataset.shown;
  setEnabled(false);
  say(`Loading ${name}, ${(model.bytes / 1e6).toFixed(1)} MB…`);
  find("model").value = name;
  const opened = model, first = !spaces.has(model.space), loading = client.load(model);
  const sheet = picture(`${name}-faces.webp`);
  const shared = await openSpace(model.space);
  if (model !== opened) return;
  ({ space, state } = shared);
  makeRows();
  await showCanned(await sheet, code);
  await Promise.all([loading, shared.draws]);
  if (model !== opened) return;
  if (code || first) restore(code || model.gallery[0]);
  live = true;
  find("progress").hidden = true;
  setEnabled(true);
  say("");
  await showEnds();
  show();
}

async function openSpace(name) {
  if (!spaces.has(name)) {
    const info = catalogue.spaces[name];
    const made = new Space(await bytes(`${name}-space.safetensors`), info);
    const draws = bytes(`${name}-draws.safetensors`).then((file) => made.addDraws(file));
    draws.catch(() => {}); // told where it is waited for
    spaces.set(name, { space: made, state: new State(made), draws });
  }
  return spaces.get(name);
}

/** Faces drawn in advance: the first of them on the stage until the model is there, the others to begin with. */
async function showCanned(sheet, code) {
  const side = sheet.naturalHeight;
  if (!code) stage.drawImage(sheet, side, 0, side, side, 0, 0, stage.canvas.width, stage.canvas.height);
  find("gallery").replaceChildren(...model.gallery.map((code, i) => {
    const button = document.createElement("button"), item = document.createElement("li");
    button.style.backgroundImage = `url("${sheet.src}")`;
    button.style.backgroundPosition = `${(100 * (i + 1)) / model.gallery.length}% 0`;
    button.ariaLabel = `Face ${i + 1}`;
    button.addEventListener("click", () => attempt(() => {
      if (tab === "morph") choose("axes");
      state.remember();
      restore(code);
      show();
    }));
    item.append(button);
    return item;
  }));
}

async function bytes(name) {
  const answer = await fetch(new URL(name, index));
  if (!answer.ok) throw new Error(`the server answers ${answer.status} for ${name}: reload the page`);
  return answer.arrayBuffer();
}

async function picture(name) {
  const image = new Image();
  image.src = new URL(name, index);
  await image.decode();
  return image;
}

function showProgress(name, share) {
  if (name !== model.name) return;
  find("progress").hidden = false;
  find("progress").value = share;
}

// ---------------------------------------------------------------------------------------------------- sliders

function makeRows() {
  rows = space.names.map((name, i) => {
    const row = document.createElement("div"), head = document.createElement("div");
    const [label, output, lock, input] = ["label", "output", "button", "input"].map((tag) => document.createElement(tag));
    row.className = "axis";
    head.className = "head";
    const [min, max] = catalogue.spaces[model.space].limits[i];
    Object.assign(input, { type: "range", min, max, step: 0.01, value: 0, id: `weight-${i}` });
    label.htmlFor = input.id;
    label.textContent = name;
    lock.className = "lock";
    lock.textContent = "lock";
    lock.title = "Randomize and Animate leave a locked axis alone";
    lock.setAttribute("aria-pressed", state.locked.has(i));
    lock.addEventListener("click", () => {
      if (!state.locked.delete(i)) state.locked.add(i);
      lock.setAttribute("aria-pressed", state.locked.has(i));
    });
    input.addEventListener("input", () => {
      state.remember(i);
      state.weights = state.weights.with(i, rounded(input.valueAsNumber, 2));
      show();
    });
    head.append(label, output, lock);
    row.append(head, input);
    return { row, input, output };
  });
  find("axis-rows").replaceChildren(...rows.slice(0, space.axes).map(({ row }) => row));
  find("attribute-rows").replaceChildren(...rows.slice(space.axes).map(({ row }) => row));
  find("tab-attributes").hidden = rows.length === space.axes;
  find("orthogonal").disabled = !space.rightAngles;
  find("prior").replaceChildren(...[AXES, ...catalogue.spaces[model.space].priors].map((name) => new Option(name)));
  showStrips();
}

function showStrips() {
  const file = new URL(`${model.name}-${state.orthogonal ? "right-angles" : "strips"}.webp`, index);
  rows.forEach(({ input }, i) => {
    input.style.backgroundImage = `url("${file}")`;
    input.style.backgroundPosition = `0 ${rows.length > 1 ? (100 * i) / (rows.length - 1) : 0}%`;
  });
}

// ---------------------------------------------------------------------------------------------------- showing

let decoding = false, stale = false, settled, painted = 0;

/** Show all that may have changed. */
function show() {
  rows.forEach(({ input, output }, i) => {
    const weight = state.weights[i];
    [input.min, input.max] = [Math.min(input.min, weight), Math.max(input.max, weight)]; // of a face from farther out
    if (input.valueAsNumber !== weight) input.value = weight;
    output.value = weight.toFixed(2).replace("-", "−");
  });
  if (find("orthogonal").checked !== state.orthogonal) {
    find("orthogonal").checked = state.orthogonal;
    showStrips();
  }
  find("share").value = morph.share;
  find("undo").disabled = !state.past.length || tab === "morph";
  draw();
  clearTimeout(settled);
  settled = setTimeout(showCode, 150); // browsers bear a change of the address a few times a second
}

function showCode() {
  if (!live || tab === "morph" || animation) return;
  const code = toCode(model.name, space, state);
  find("code").value = code;
  history.replaceState(null, "", `#${code}`);
  main.dataset.shown = code;
}

function latent() {
  return tab === "morph" ? between(...morph.ends, morph.share, morph.spherical) : space.latent(state);
}

/** Draw the face; where faces are asked for faster than they can be decoded, the newest one next. */
async function draw() {
  if (!live) return;
  stale = true;
  if (decoding) return;
  decoding = true;
  try {
    while (stale && live) {
      stale = false;
      paint(stage, await client.decode(model, latent()));
      main.dataset.painted = ++painted;
    }
  } catch (error) {
    complain(error);
  } finally {
    decoding = false;
  }
}

function paint(context, face) {
  [small.width, small.height] = [face.width, face.height];
  small.getContext("2d").putImageData(face, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, context.canvas.width, context.canvas.height);
}

async function showEnds() {
  if (morph.space !== space) {
    morph.space = space;
    const codes = [model.gallery[1 % model.gallery.length], model.gallery[2 % model.gallery.length]];
    morph.ends = codes.map((code) => space.latent(fromCode(code, space, catalogue.spaces[model.space].priors)));
  }
  for (const side of [0, 1]) paint(find(`end-${side}`).getContext("2d"), await client.decode(model, morph.ends[side]));
}

function say(text, isError = false) {
  find("message").textContent = text;
  find("message").classList.toggle("error", isError);
}

function complain(error) {
  say(error.message[0].toUpperCase() + error.message.slice(1), true);
}

function setEnabled(enabled) {
  for (const id of ["randomize", "animate", "reset", "save"]) find(id).disabled = !enabled;
}

/** Do it, and say what goes wrong. */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    find("progress").hidden = true;
    complain(error);
  }
}

// ---------------------------------------------------------------------------------------------------- doing

/** Go to the face that `code` stands for. */
function restore(code) {
  const face = fromCode(code, space, catalogue.spaces[model.space].priors);
  if (face.draw) space.takenApart(face.draw); // complains where it can't be made here
  Object.assign(state, { weights: face.weights, draw: face.draw, changing: null });
  if (face.kind) state.orthogonal = face.orthogonal;
  say("");
}

async function follow(code) {
  const name = modelOf(code);
  if (name && !catalogue.models.some((each) => each.name === name)) throw new Error(`the code is for the model "${name}", which is not here`);
  if (name && name !== model.name) return open(name, code);
  state.remember();
  try {
    restore(code);
  } catch (error) {
    state.past.pop();
    throw error;
  }
  show();
}

/** What `spread` and `draw from` make of chance: {weights, draw} of a new face. */
function drawn() {
  const prior = find("prior").value, spread = find("spread").valueAsNumber;
  let draw = null, weights = Array.from({ length: space.axes }, () => spread * normal());
  if (prior !== AXES) {
    draw = { prior, seed: Math.floor(Math.random() * space.seeds), spread };
    ({ weights } = space.takenApart(draw));
  }
  return { draw, weights: space.names.map((_, i) => (i < space.axes ? rounded(clamped(weights[i]), 1) : 0)) };
}

function randomize() {
  if (tab === "morph") return drawEnd(0).then(() => drawEnd(1));
  state.remember();
  const { weights, draw } = drawn();
  state.draw = draw;
  state.weights = weights.map((weight, i) => (state.locked.has(i) ? state.weights[i] : weight));
  state.directions = state.directions.map(() => (Math.random() < 0.5 ? 1 : -1));
  say("");
  show();
}

function drawEnd(side) {
  return setEnd(side, space.latent({ ...drawn(), orthogonal: false }));
}

async function setEnd(side, latent) {
  morph.ends = morph.ends.with(side, latent);
  paint(find(`end-${side}`).getContext("2d"), await client.decode(model, latent));
  show();
}

function reset() {
  if (tab === "morph") morph.share = 0;
  else {
    state.remember();
    Object.assign(state, { weights: space.names.map(() => 0), draw: null });
  }
  show();
}

function undo() {
  stop();
  if (state.past.length) state.undo();
  show();
}

function toggleAnimation() {
  if (animation) return stop();
  if (tab !== "morph") state.remember();
  let before = performance.now();
  const frame = (now) => {
    const steps = Math.min(5, (now - before) / FRAME) * find("speed").valueAsNumber;
    before = now;
    if (tab === "morph") morph.share = bounced(morph, morph.share, MORPH_STEP * steps, 0, 1);
    else moveAxes(STEP * steps);
    show();
    animation = requestAnimationFrame(frame);
  };
  animation = requestAnimationFrame(frame);
  find("animate").setAttribute("aria-pressed", true);
}

function moveAxes(step) {
  state.weights = state.weights.map((weight, axis) => {
    if (axis >= space.axes || state.locked.has(axis)) return weight;
    const mover = { direction: state.directions[axis] };
    const [low, high] = catalogue.spaces[model.space].limits[axis];
    const moved = bounced(mover, weight, step, Math.min(low, weight), Math.max(high, weight));
    state.directions[axis] = mover.direction;
    return moved;
  });
}

function bounced(mover, place, step, least, most) {
  if (place + step * mover.direction > most || place + step * mover.direction < least) mover.direction *= -1;
  return Math.min(most, Math.max(least, place + step * mover.direction));
}

function stop() {
  if (!animation) return;
  cancelAnimationFrame(animation);
  animation = 0;
  state.weights = state.weights.map((weight) => rounded(weight, 2));
  find("animate").setAttribute("aria-pressed", false);
  show();
}

function save() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SAVED;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, SAVED, SAVED);
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${model.name}-${SAVED}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });
}

async function saveNow() {
  paint(stage, await client.decode(model, latent())); // the small picture may be that of a morph's end
  save();
}

function choose(name) {
  stop();
  tab = name;
  for (const button of document.querySelectorAll("[role=tab]")) {
    const chosen = button.id === `tab-${name}`;
    button.setAttribute("aria-selected", chosen);
    button.tabIndex = chosen ? 0 : -1;
    find(button.id.slice(4)).hidden = !chosen;
  }
  find("code").disabled = name === "morph";
  if (name === "morph") find("code").value = "";
  show();
}

// ---------------------------------------------------------------------------------------------------- listening

const on = (id, event, action) => find(id).addEventListener(event, (given) => attempt(() => action(given)));

on("randomize", "click", randomize);
on("animate", "click", toggleAnimation);
on("undo", "click", undo);
on("reset", "click", () => { stop(); reset(); });
on("save", "click", saveNow);
on("model", "change", () => open(find("model").value));
on("code", "change", () => follow(find("code").value));
on("share", "input", () => { morph.share = find("share").valueAsNumber; show(); });
on("spherical", "change", () => { morph.spherical = find("spherical").checked; show(); });
on("orthogonal", "change", () => {
  state.remember();
  state.orthogonal = find("orthogonal").checked;
  showStrips();
  show();
});
on("link", "click", async () => {
  showCode();
  await navigator.clipboard.writeText(location.href);
  say("The address of this face is copied.");
});
for (const side of [0, 1]) {
  on(`take-${side}`, "click", () => setEnd(side, space.latent(state)));
  on(`draw-${side}`, "click", () => drawEnd(side));
}
for (const id of ["spread", "speed"]) {
  on(id, "input", () => { find(id).nextElementSibling.value = find(id).valueAsNumber.toFixed(1); });
}
for (const button of document.querySelectorAll("[role=tab]")) {
  button.addEventListener("click", () => choose(button.id.slice(4)));
  button.addEventListener("keydown", ({ key }) => {
    const tabs = [...document.querySelectorAll("[role=tab]:not([hidden])")], way = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (!way) return;
    const next = tabs[(tabs.indexOf(button) + way + tabs.length) % tabs.length];
    next.focus();
    choose(next.id.slice(4));
  });
}
addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || target.matches("select, #code") || (key === " " && target.matches("button"))) return;
  const action = { r: "randomize", " ": "animate", u: "undo", 0: "reset", s: "save" }[key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  find(action).click();
});
addEventListener("hashchange", () => attempt(() => follow(decodeURIComponent(location.hash.slice(1)))));

attempt(async () => {
  catalogue = JSON.parse(new TextDecoder().decode(await bytes("models.json")));
  find("model").replaceChildren(...catalogue.models.map(({ name }) => new Option(name)));
  find("model").disabled = false;
  const code = decodeURIComponent(location.hash.slice(1)), known = catalogue.models.some(({ name }) => name === modelOf(code));
  try {
    await open(known ? modelOf(code) : catalogue.models[0].name, known ? code : "");
  } finally {
    if (code && !known) throw new Error(`"${code}" is no code of a model that is here`);
  }
});
