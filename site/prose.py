"""Markdown to HTML as the pages show it: formulas as MathML, anchors at headings, links to pages, sized pictures."""

import hashlib
import html
import posixpath
import re
import unicodedata
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import latex2mathml.converter
from nbconvert.filters.highlight import _pygments_highlight
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image
from pygments.formatters import HtmlFormatter

FUNCTIONS = "log|exp|sin|cos|min|max"
THIN = '<mspace width="0.167em"/>'


class Prose(IPythonRenderer):
    """Renders one page. `link` turns an address into one that holds on the site, or "" where there is none.

    `headings` collects (level, anchor, HTML) as they come, `formulas` counts what was typeset.
    """

    def __init__(self, link: Callable[[str], str], picture: Callable[[str, str], str]):
        super().__init__(escape=False)
        self._link, self._picture = link, picture
        self.headings: list[tuple[int, str, str]] = []
        self.formulas = 0

    def convert(self, text: str) -> str:
        return MarkdownWithMath(renderer=self).render(text)

    def heading(self, text: str, level: int, **attrs) -> str:
        name = anchor(text)
        taken = sum(name == re.sub(r"-\d+$", "", other) or name == other for _, other, _ in self.headings)
        name += f"-{taken + 1}" if taken else ""
        self.headings.append((level, name, text))
        here = f'<a class="anchor" href="#{name}" aria-label="Link here">#</a>'
        return f'<h{level} id="{name}">{text} {here}</h{level}>\n'

    def inline_math(self, body: str) -> str:
        return f'<span class="inline">{self._formula(body, "inline")}</span>'

    def block_math(self, body: str) -> str:
        return f'<span class="formula">{self._formula(body, "block")}</span>'

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def _formula(self, body: str, display: str) -> str:
        self.formulas += 1
        return mathml(body, display)

    def link(self, text: str, url: str, title: str | None = None) -> str:
        target = self._link(url)
        if not target:
            return text
        away = ' rel="noopener"' if "//" in target else ""
        return f'<a href="{html.escape(target)}"{away}>{text}</a>'

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return self._picture(url, html.unescape(text))

    def block_html(self, html: str) -> str:
        return super().block_html(self._pictures_in(html))

    def inline_html(self, html: str) -> str:
        return super().inline_html(self._pictures_in(html))

    def _pictures_in(self, text: str) -> str:
        def replace(tag: re.Match) -> str:
            found = {name: html.unescape(value) for name, value in re.findall(r'(\w+)="([^"]*)"', tag[0])}
            return self._picture(found["src"], found.get("alt", ""))

        return re.sub(r"<img [^>]*>", replace, text)


def mathml(tex: str, display: str) -> str:
    """A formula as MathML, with its TeX beside it for whoever copies it. Raises `ValueError` where TeX is left over."""
    out = latex2mathml.converter.convert(" ".join(tex.split()), display=display)
    if left := re.search(r">[^<]*\\[a-zA-Z]+[^<]*<", out):
        raise ValueError(f"the formula {tex!r} is not typeset whole: {left[0]}")
    # Browsers know no alphabets by attribute, no spaces around log, and too wide ones around a bar.
    out = re.sub(r'<mi mathvariant="(double-struck|script|bold)">(\w)</mi>', _letter, out)
    out = re.sub(rf"(?<=</mi>)(?=<mi>(?:{FUNCTIONS})</mi>)", THIN, out)
    out = re.sub(
        rf"(?<!<msub>)(?<!<msup>)(<mi>(?:{FUNCTIONS})</mi>)(?=<m(?:[in]|row|frac|over|su[bp]|text)\b)",
        rf"\1{THIN}",
        out,
    )
    out = out.replace('stretchy="false">&#x0007C;', 'stretchy="false" lspace="0.1em" rspace="0.1em">|')
    return out.replace("<math ", f'<math aria-label="{html.escape(tex)}" ', 1)


def _letter(found: re.Match) -> str:
    kind, letter = found[1].upper(), found[2]
    name = f"{kind} {'CAPITAL' if letter.isupper() else 'SMALL'} {letter.upper()}"
    try:
        return f"<mi>{unicodedata.lookup(f'MATHEMATICAL {name}')}</mi>"
    except KeyError:  # the few that Unicode had before the others, such as ℝ
        return f"<mi>{unicodedata.lookup(name)}</mi>"


def anchor(text: str) -> str:
    """The name of a heading, from its HTML: as GitHub makes it."""
    words = html.unescape(re.sub(r"<[^>]*>", "", text)).strip().lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def code(source: str) -> str:
    """Python with its colours, as HTML."""
    return _pygments_highlight(source.rstrip("\n"), HtmlFormatter(cssclass="code"), "ipython3")


class Pictures:
    """Files of pictures, each written once under a name made of its content, and the tags that show them."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def tag(self, content: bytes, alt: str, root: str, scale: float = 1.0) -> str:
        """An <img> on a page from which `root` leads to the top; loaded when it comes into view."""
        name, width, height = self.write(content)
        size = f'width="{round(width * scale)}" height="{round(height * scale)}"'
        source = f'src="{root}{self.folder.name}/{name}" alt="{html.escape(alt)}"'
        return f'<img {source} {size} loading="lazy" decoding="async">'

    def write(self, content: bytes) -> tuple[str, int, int]:
        """The file's name, and the picture's width and height."""
        with Image.open(BytesIO(content)) as picture:
            (width, height), kind = picture.size, picture.format.lower()
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.{kind}"
        (self.folder / name).write_bytes(content)
        return name, width, height


def local_link(url: str, page: str, pages: dict[str, str], repository: str) -> str:
    """Where `url`, written on `page` (a path in the repository), leads on the site; see `pages` (path to path).

    A file that is no page of the site is linked on GitHub where `repository` ("owner/name") is known, else not at all.
    """
    if re.match(r"[a-z]+:|//|#", url):
        return url
    path, _, fragment = url.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
    fragment = f"#{fragment}" if fragment else ""
    if path in pages:
        return posixpath.relpath(pages[path], posixpath.dirname(pages[page]) or ".") + fragment
    return f"https://github.com/{repository}/blob/main/{path}{fragment}" if repository else ""
