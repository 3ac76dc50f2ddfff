"""What does a visitor of the served page cost, and how does the page take a flood of slider messages?

Starts a kernel as the page does, opens the explorer in it and prints its memory (USS: what ends with the process),
then sends 5,000 messages of a slider at once and prints the seconds until the last is answered.

    python tests/benchmarks/visitors.py
"""

import argparse
import datetime
import os
import platform
import time
from pathlib import Path

import psutil
from jupyter_client.manager import start_new_kernel

OPEN = """
from vaelib.explorer import _EXPLORERS
from vaelib.explorer_app import app
page = app()
explorer = next(iter(_EXPLORERS))
count, draw = 0, explorer._draw
def counted():
    global count
    count += 1
    draw()
explorer._draw = counted
"""
CHOOSE = "explorer.model_choice.value = {name!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--models", nargs="*", default=["anime", "anime-sharp", "cartoon", "drawn-anime"])
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, {platform.machine()}, {datetime.date.today()}")
    os.environ["JUPYTER_WIDGETS_ECHO"] = "0"  # as `explore` sets it
    manager, client = start_new_kernel(cwd=str(Path(__file__).parents[2]))
    try:
        kernel = psutil.Process(manager.provisioner.pid)
        print(f"kernel: {megabytes(kernel)} MB")
        told(client, OPEN)
        for name in options.models:
            told(client, CHOOSE.format(name=name))
            print(f"{name} opened: {megabytes(kernel)} MB")
        slider = told(client, "count = 0; print(explorer.sliders[0].comm.comm_id)")
        before, started = kernel.cpu_times().user, time.perf_counter()
        for event in range(options.messages):
            data = {"method": "update", "state": {"value": event % 60 / 20}, "buffer_paths": []}
            client.shell_channel.send(client.session.msg("comm_msg", {"comm_id": slider, "data": data}))
        drawn = told(client, "print(count)")
        seconds, cpu = time.perf_counter() - started, kernel.cpu_times().user - before
        print(f"{options.messages:,} messages answered in {seconds:.1f} s, {cpu:.1f} s of CPU, {drawn} pictures drawn")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def megabytes(process: psutil.Process) -> int:
    return round(process.memory_full_info().uss / 1e6)


def told(client, code: str) -> str:
    printed = []
    client.execute_interactive(code, timeout=None, output_hook=lambda said: printed.append(said["content"]))
    return "".join(content.get("text", "") for content in printed).strip()


if __name__ == "__main__":
    main()
