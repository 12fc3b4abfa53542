"""What this command measures of loops and portals, in asyncio and anyio.

    loops_anyio.py TASKS MILLISECONDS

prints a JSON object a line with the name of a figure and nanoseconds, or the bytes of
one of TASKS tasks that wait.
"""

import asyncio
import json
import os
import sys
import threading
import time

import anyio
from anyio import from_thread, to_thread

waiting = int(sys.argv[1])
budget = float(sys.argv[2]) * 1e6
CALLERS = 64


def put(name, value):
    print(json.dumps({"name": name, "value": value}), flush=True)


async def price(call, between=1):
    """The nanoseconds of one call, the first not counted, with so many between two
    looks at the clock."""
    await call()
    done, start = 0, time.perf_counter_ns()
    while True:
        for _ in range(between):
            await call()
        done += between
        took = time.perf_counter_ns() - start
        if took >= budget:
            return took / done


def price_sync(call):
    call()
    done, start = 0, time.perf_counter_ns()
    while True:
        call()
        done += 1
        took = time.perf_counter_ns() - start
        if took >= budget:
            return took / done


async def nothing():
    pass


def nothing_sync():
    pass


async def switches():
    """From one of two tasks to the other."""
    over = False

    async def other():
        while not over:
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    pair = await price(lambda: asyncio.sleep(0), 50)
    over = True
    await task
    put("switch/asyncio", pair / 2)


async def joins():
    async def join():
        await asyncio.create_task(nothing())

    put("join/asyncio", await price(join, 50))


async def locks():
    lock, event, limiter = anyio.Lock(), anyio.Event(), anyio.CapacityLimiter(4)
    event.set()

    async def use_lock():
        async with lock:
            pass

    async def use_limiter():
        async with limiter:
            pass

    put("lock/mutex/anyio", await price(use_lock, 50))
    put("lock/event/anyio", await price(event.wait, 50))
    put("lock/limiter/anyio", await price(use_limiter, 50))


def resident():
    """The bytes that this process has in memory, None where that is not told."""
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


async def parked():
    before = resident()
    if before is None:
        return
    event = asyncio.Event()
    tasks = [asyncio.create_task(event.wait()) for _ in range(waiting)]
    await asyncio.sleep(0)
    put("parked/asyncio", (resident() - before) / waiting)
    event.set()
    await asyncio.gather(*tasks)


async def main():
    await parked()
    await switches()
    await joins()
    await locks()
    put("back/anyio", await price(lambda: to_thread.run_sync(nothing_sync)))

    def worker():
        put("away/anyio-run", price_sync(lambda: from_thread.run(nothing)))

    await to_thread.run_sync(worker)


def busy(portal):
    """CALLERS threads call one loop."""
    counts, end = [0] * CALLERS, time.perf_counter_ns() + budget

    def caller(i):
        while True:
            portal.call(nothing)
            counts[i] += 1
            if time.perf_counter_ns() >= end:
                return

    threads = [threading.Thread(target=caller, args=(i,)) for i in range(CALLERS)]
    start = time.perf_counter_ns()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    put("busy/anyio", (time.perf_counter_ns() - start) / sum(counts))


anyio.run(main)
with from_thread.start_blocking_portal() as portal:
    put("away/anyio-call", price_sync(lambda: portal.call(nothing)))
    put("away/anyio-soon", price_sync(lambda: portal.start_task_soon(nothing).result()))
    busy(portal)
