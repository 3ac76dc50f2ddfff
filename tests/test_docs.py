"""README, glossary, lessons and docstrings: links lead somewhere, words are spelt, commands and files exist."""

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import mistune
import nbformat
import pytest
from spellchecker import SpellChecker

from vaelib.__main__ import _parser

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))
from describe import alt_texts  # noqa: E402

NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "notebooks").glob("*.md")), *NOTEBOOKS]
MODULES = sorted((ROOT / "vaelib").glob("*.py"))
WORDS = Path(__file__).with_name("words.txt")

parse = mistune.create_markdown(renderer="ast", plugins=["table", "math"])


def markdown(path: Path) -> str:
    """The text of a page; of a notebook, all its markdown cells."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def walk(nodes: list[dict]) -> Iterator[dict]:
    for node in nodes:
        yield node
        yield from walk(node.get("children", []))


def text_of(node: dict) -> str:
    return node.get("raw", "") + "".join(text_of(child) for child in node.get("children", []))


def nodes_of(source: str, *kinds: str) -> list[dict]:
    return [node for node in walk(parse(source)) if node["type"] in kinds]


every_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


# Links and pictures


@dataclass(frozen=True)
class Picture:
    url: str
    alt: str


def pictures(source: str) -> list[Picture]:
    """Those written as ![alt](url) and those written as <img>."""
    found = [Picture(node["attrs"]["url"], text_of(node)) for node in nodes_of(source, "image")]
    for node in nodes_of(source, "inline_html", "block_html"):
        for tag in re.findall(r"<img\b[^>]*>", node["raw"]):
            attributes = dict(re.findall(r'(\w+)="([^"]*)"', tag))
            found.append(Picture(attributes["src"], attributes.get("alt", "")))
    return found


def links(source: str) -> list[str]:
    return [node["attrs"]["url"] for node in nodes_of(source, "link")] + [it.url for it in pictures(source)]


def anchors(path: Path) -> set[str]:
    """What GitHub makes of a page's headings: small letters, no punctuation, - for a space."""
    headings = [text_of(node) for node in nodes_of(markdown(path), "heading")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def what_is_wrong_with(link: str, page: Path) -> str:
    """Why a link on `page` leads nowhere, as far as one can tell without the internet; "" where it is fine."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        if not re.fullmatch(r"https?://[\w-]+(\.[\w-]+)+(/\S*)?", link):
            return "not a well-formed address"
        if parts.netloc == "arxiv.org" and not re.fullmatch(r"/abs/\d{4}\.\d{4,5}", parts.path):
            return "not the form of arXiv's pages, /abs/1312.6114"
        return ""
    target = (page.parent / parts.path).resolve() if parts.path else page
    if ROOT not in target.parents or not target.exists():
        return "no such file in the project"
    if parts.fragment and (target.suffix != ".md" or parts.fragment not in anchors(target)):
        return "no such heading"
    return ""


@every_page
def test_links_lead_somewhere(path):
    source = markdown(path)
    assert not {link: wrong for link in links(source) if (wrong := what_is_wrong_with(link, path))}
    left = [text_of(node) for node in nodes_of(source, "text") if re.search(r"\]\s?[(\[]|https?://", text_of(node))]
    assert not left, "not parsed as links"


def test_bad_links_are_found():
    page = ROOT / "README.md"
    for good in ("LICENSE", "#the-lessons", "notebooks/glossary.md", "https://arxiv.org/abs/1312.6114"):
        assert not what_is_wrong_with(good, page)
    for bad in (
        "images/none.png",
        "#no-such",
        "../elsewhere",
        "ftp://example.org",
        "https://example",
        "https://arxiv.org/pdf/1",
    ):
        assert what_is_wrong_with(bad, page), bad


@every_page
def test_pictures_have_a_text_for_those_who_cannot_see_them(path):
    assert not [picture for picture in pictures(markdown(path)) if len(picture.alt) < 8]


# Spelling

BRITISH = re.compile(
    r"color|gray|center|neighbor|behavior|\b(fav|flav|hon)or|label(ed|ing)|model(ed|ing)|catalog\b|"
    r"(final|general|initial|maxim|minim|normal|optim|orthogonal|parametr|parameter|real|recogn|regular|standard|summar|"
    r"visual)iz"
)


def prose(source: str) -> str:
    """The words of a page's own: no code, no formula, no address, no title or author of somebody else's work."""

    def words(node: dict) -> str:
        if node["type"] in ("codespan", "block_code", "inline_math", "block_math", "inline_html", "block_html"):
            return " "
        if node["type"] == "link" and node["attrs"]["url"].startswith("https://"):
            return " "
        text = node.get("raw", "") + "".join(words(child) for child in node.get("children", []))
        ends = ("paragraph", "heading", "block_text", "table_cell", "image", "softbreak", "linebreak")
        return f"{text}\n" if node["type"] in ends else text

    authors = re.compile(r"^(- )[^\[\n:]*(?=\[|\*[^*])", re.MULTILINE)  # "- Kingma & Ba, [*Adam*](…): why"
    return "".join(words(node) for node in parse(authors.sub(r"\1", source)))


def docstrings(path: Path) -> str:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, documented)]
    texts = [ast.get_docstring(node) or "" for node in nodes]
    return re.sub(r"`[^`]+`|\"[^\"]+\"|https?://\S+", " ", "\n\n".join(texts))


@cache
def dictionary() -> SpellChecker:
    """English as pyspellchecker knows it, and the words of tests/words.txt: the field's, British ones, names."""
    checker = SpellChecker()
    checker.word_frequency.load_words(WORDS.read_text(encoding="utf-8").split())
    return checker


def misspelt(text: str) -> set[str]:
    """Words of small letters, or with a capital in front, that are in no dictionary or not British."""
    words = re.findall(r"\b[^\W\d_]+(?:['’][^\W\d_]+)*\b", text)
    plain = {re.sub(r"['’]s$", "", word) for word in words}
    plain = {word.replace("’", "'").lower() for word in plain if len(word) > 1 and word[1:].islower()}
    american = {word for word in plain if BRITISH.search(word)}
    return american | {word for word in dictionary().unknown(plain) if word.isascii()}  # ä, é: names


def pictures_texts(path: Path) -> str:
    """What a notebook says of its cells' pictures to those who cannot see them."""
    cells = nbformat.read(path, as_version=4).cells if path.suffix == ".ipynb" else []
    return "\n".join(text for cell in cells for text in alt_texts(cell))


@every_page
def test_words_on_a_page_are_spelt_right(path):
    assert not misspelt(prose(markdown(path)) + pictures_texts(path)), f"misspelt, or missing in {WORDS.name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_words_in_docstrings_are_spelt_right(path):
    assert not misspelt(docstrings(path)), f"misspelt, or missing in {WORDS.name}"


def test_misspelt_words_are_found():
    source = "We recieve *seperate* faces, `definately` code, [a ttile](https://example.org). Don't optimize the color."
    assert misspelt(prose(source)) == {"recieve", "seperate", "optimize", "color"}
    assert not misspelt("The encoder's colours, minimised; the decoder won't. Orthonormal: resized.")


def test_the_word_list_is_small_and_in_order():
    words = WORDS.read_text(encoding="utf-8").splitlines()
    assert words == sorted(set(words))
    assert len(words) < 250


# Commands and files that a page names


def code_lines(source: str) -> list[str]:
    lines = [line for node in nodes_of(source, "block_code") for line in node["raw"].splitlines()]
    return lines + [node["raw"] for node in nodes_of(source, "codespan")]


@every_page
def test_commands_are_ones_that_the_package_takes(path, capsys):
    said = [line for line in code_lines(markdown(path)) if re.search(r"-m vaelib \w", line)]
    for line in said:
        arguments = shlex.split(line.partition("-m vaelib ")[2], comments=True)
        try:
            _parser().parse_args(arguments)
        except SystemExit as done:
            assert done.code == 0, f"{line}\n{capsys.readouterr().err}"  # 0: --help


@every_page
def test_make_knows_the_targets(path):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    said = {name for line in code_lines(markdown(path)) for name in re.findall(r"^make ([a-z]+)", line)}
    assert said <= targets


@every_page
def test_files_named_in_code_exist(path):
    lines = "\n".join(code_lines(markdown(path)))
    named = re.findall(r"(?<![\w./])(?:tests|notebooks|images|vaelib)/[\w/.-]+\.(?:py|ipynb|md|png|gif)\b", lines)
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_guide_names_every_module_and_the_readme_every_lesson():
    guide = (ROOT / "GUIDE.md").read_text(encoding="utf-8")
    reference = guide.partition("## The package")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", reference))
    modules = {path.stem for path in MODULES if not path.stem.startswith("__")} - {"storage"}
    assert modules <= named, modules - named
    lessons = {path.relative_to(ROOT).as_posix() for path in NOTEBOOKS if path.parent.name == "notebooks"}
    assert lessons <= set(links((ROOT / "README.md").read_text(encoding="utf-8")))


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 9000
