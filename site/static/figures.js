// Figures that a hand moves. Each is a <figure> with a range input; its pictures were drawn when the page was made.

const PACE = 14; // frames of a film per second

const loaded = async (address) => {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
};

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

for (const figure of document.querySelectorAll(".morphing")) film(figure);
for (const figure of document.querySelectorAll(".curtain")) curtain(figure);
