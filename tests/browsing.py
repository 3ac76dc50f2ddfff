"""JupyterLab or Voilà on a notebook, and Chromium to look at it: for tests/test_browser.py, benchmarks and pictures."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
HANG = 600_000  # milliseconds after which something hangs; all waits end by what they wait for
CHROMIUM = os.environ.get("VAELIB_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def missing() -> str:
    """What a browser test lacks here, as a reason to skip it; empty where all is there."""
    packages = [name for name in ("playwright", "jupyterlab", "voila") if find_spec(name) is None]
    if packages:
        return f"needs the packages {', '.join(packages)}: pip install 'vaelib[test,app]'"
    return "" if CHROMIUM else "needs Chromium: apt-get install chromium, or set VAELIB_CHROMIUM to its path"


@contextmanager
def browser_page(width: int = 1280, height: int = 900):
    """A page in headless Chromium, with `page.problems`: the errors that it wrote to its console or threw."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(HANG)
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda said: page.problems.extend(_problems(said)))
        yield page
        browser.close()


def _problems(said) -> list[str]:
    """An error in the console, unless it is about a font from the internet or an extension that someone installed."""
    where = said.location.get("url", "")
    if said.type != "error" or "labextensions/" in said.text + where or not where.startswith("http://127.0.0.1"):
        return []
    return [f"{said.text} ({where})"]


@contextmanager
def serve(notebook: Path, folder: Path, app: str) -> Iterator[str]:
    """Serve `notebook` by "voila" or "lab" and hand out its address; settings and the log go to `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "settings"
    news = settings / "@jupyterlab" / "apputils-extension"
    news.mkdir(parents=True, exist_ok=True)
    (news / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    address = f"http://127.0.0.1:{port}/"
    options = {
        "voila": [str(notebook), "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"],
        "lab": ["--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1", "--IdentityProvider.token=T",
                f"--ServerApp.root_dir={notebook.parent}", "--expose-app-in-browser"],
    }[app]  # fmt: skip
    module = {"voila": "voila", "lab": "jupyterlab"}[app]
    with open(folder / f"{app}.log", "w") as log:
        command = [sys.executable, "-m", module, *options]
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        _wait_for(address + {"voila": "voila/static/favicon.ico", "lab": "api"}[app], server, folder / f"{app}.log")
        yield address if app == "voila" else f"{address}lab/tree/{notebook.name}?token=T&reset"
    finally:
        server.terminate()
        server.wait(HANG / 1000)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(HANG // 500):
        if server.poll() is not None:
            raise OSError(f"the server ended: {log.read_text()}")
        try:
            urllib.request.urlopen(address, timeout=HANG / 1000)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.5)
    raise OSError(f"the server does not answer: {log.read_text()}")


def picture_in(page) -> bytes:
    """The file that the explorer's picture, the first of its images, shows now."""
    code = """async image => {
        const response = await fetch(image.src);
        return Array.from(new Uint8Array(await response.arrayBuffer()));
    }"""
    return bytes(page.locator("img.widget-image").first.evaluate(code))


def run_all_cells(page) -> None:
    """In JupyterLab: wait for the notebook and its kernel, then run every cell, and wait until all are done."""
    # Not by the indicator on the page, which says "idle" before there is a kernel; cells that run then do nothing.
    idle = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=HANG)
    page.wait_for_function(idle, timeout=HANG)
    # By JupyterLab's own commands: its menus close whenever the page is laid out anew.
    # The commands' promises do not always end, so the cells' own prompts say when all are done.
    for command in ("notebook:clear-all-cell-outputs", "notebook:run-all-cells"):
        page.wait_for_function(f"window.jupyterapp?.commands.isEnabled('{command}')", timeout=HANG)
        page.evaluate(f"() => {{ jupyterapp.commands.execute('{command}'); }}")
    done = """() => {
        const prompts = [...document.querySelectorAll('.jp-InputPrompt')].map(prompt => prompt.textContent);
        return prompts.some(text => /[0-9]/.test(text)) && !prompts.some(text => text.includes('*'));
    }"""
    page.wait_for_function(done, timeout=HANG)
    page.wait_for_function(idle, timeout=HANG)
