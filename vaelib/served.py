"""What the page of `python -m vaelib explore` shows: the explorer, for as many visitors as the machine has memory for.

Each visitor has a kernel of their own. It holds a seat as long as it lives; who comes when all are taken is told so.
"""

import os
from pathlib import Path

import ipywidgets as widgets
from filelock import FileLock, Timeout
from IPython.display import HTML

from vaelib.storage import cache_folder

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
VISITOR_BYTES = (
    1_000_000_000  # of memory: a kernel takes 0.7 GB with one model, 0.95 with four (tests/benchmarks/visitors.py)
)
_held: list[FileLock] = []


def tell_when_closed() -> HTML:
    """What lets a page that is closed end its kernel at once: the cookie that the server asks for, unless it is there.

    Voilà's page sends the cookie back as a field when it is left, and the server refuses what comes without; but it
    never sets it.
    """
    return HTML(
        "<script>if (!/(^|; )_xsrf=/.test(document.cookie)) document.cookie = '_xsrf=' + "
        "Array.from(crypto.getRandomValues(new Uint8Array(16)), byte => byte.toString(16).padStart(2, '0')).join('') + "
        "'; path=/; SameSite=Strict'</script>"
    )


def sorry() -> widgets.Widget:
    """What a visitor sees who has no seat."""
    return widgets.HTML(
        f"<p>{seats()} pages are open, which is all that this machine has memory for. One that was closed makes room "
        "after five minutes: reload this page then. Whoever runs the server can allow more: VAELIB_VISITORS.</p>"
    )


def seats() -> int:
    """How many visitors at once: VAELIB_VISITORS, else what four fifths of the memory hold."""
    told = os.environ.get("VAELIB_VISITORS")
    if told is not None:
        if not told.isdigit() or int(told) < 1:
            raise ValueError(f"got VAELIB_VISITORS={told!r}, expected a number of visitors, 1 or more")
        return int(told)
    return max(1, int(0.8 * _memory_bytes() / VISITOR_BYTES))


def take_seat(count: int | None = None) -> bool:
    """Hold one of `count` seats (default: `seats()`) until this process ends. False where none is free.

    It is held by a lock, which the system gives back even where the process is killed.
    """
    folder = cache_folder("seats")
    for number in range(count or seats()):
        lock = FileLock(folder / f"{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        _held.append(lock)
        return True
    return False


def _memory_bytes() -> int:
    """The machine's memory, or what its container may take of it."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows does not tell
        machine = 8_000_000_000
    try:
        limit = CONTAINER_LIMIT.read_text().strip()
    except OSError:
        return machine
    return min(machine, int(limit)) if limit.isdigit() else machine  # it says "max" for none
