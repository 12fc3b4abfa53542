"""The shapes of this command in asgiref: a call, a request, nested calls.

    nest_asgiref.py DEPTHS MILLISECONDS

prints a JSON object a line with the name of a figure and nanoseconds.
"""

import asyncio
import json
import sys
import time

from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async

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
        await to_async(depth)


def up(depth):
    # Made here, where it finds the loop that runs: one made beforehand would
    # start a loop for each call.
    async_to_sync(down)(depth - 1)


to_async = sync_to_async(up, thread_sensitive=True)


async def main():
    call = sync_to_async(nothing, thread_sensitive=True)
    async with ThreadSensitiveContext():
        put("call/asgiref", await price(call))

    async def request():
        async with ThreadSensitiveContext():
            await call()

    put("context/asgiref", await price(request))
    for depth in depths:
        async with ThreadSensitiveContext():
            put(f"level/asgiref/{depth}", await price(lambda: down(depth)) / depth)


asyncio.run(main())
