// What every page does: copy buttons on cells, and the section that is being read marked in the contents.

for (const source of document.querySelectorAll(".source, .prose .code")) {
  source.classList.add("source");
  const button = document.createElement("button");
  button.className = "copy";
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(source.querySelector("pre").textContent.trimEnd());
    button.textContent = "Copied";
    button.classList.add("done");
    setTimeout(() => { button.textContent = "Copy"; button.classList.remove("done"); }, 1500);
  });
  source.append(button);
}

const links = new Map([...document.querySelectorAll(".here a")].map((link) => [link.hash.slice(1), link]));
const headings = [...document.querySelectorAll("main h2[id]")].filter((heading) => links.has(heading.id));
function mark() {
  const read = headings.findLast((heading) => heading.getBoundingClientRect().top < innerHeight / 3);
  for (const [name, link] of links) {
    if (name === read?.id) link.setAttribute("aria-current", "location");
    else link.removeAttribute("aria-current");
  }
}
if (headings.length) {
  addEventListener("scroll", () => requestAnimationFrame(mark), { passive: true });
  mark();
}
