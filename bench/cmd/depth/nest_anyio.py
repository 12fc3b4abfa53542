"""The shapes of this command in anyio: a call, nested calls.

    nest_anyio.py DEPTHS MILLISECONDS

prints a JSON object a line with the name of a figure and nanoseconds.
anyio's functions run on any thread of a pool, each level on one of its own.
"""

import json
import sys
import time

import anyio
from anyio import from_thread, to_thread

depths = [int(d) for d in sys.argv[1].split(",")]
budget = float(sys.argv[2]) * 1e6


def put(name, value):
    print(json.dumps({"name": name, "value": value}), flush=True)


async def price(call):
    """The nanoseconds of one call, the first not counted."""
    await call()
    done, start = 0, time.perf_counter_ns()
    while True:
        await call()
        done += 1
        took = time.perf_counter_ns() - start
        if took >= budget:
            return took / done


def nothing():
    pass


async def down(depth):
    if depth > 0:
        await to_thread.run_sync(up, depth)


def up(depth):
    from_thread.run(down, depth - 1)


async def main():
    put("call/anyio", await price(lambda: to_thread.run_sync(nothing)))
    for depth in depths:
        put(f"level/anyio/{depth}", await price(lambda: down(depth)) / depth)


anyio.run(main)
