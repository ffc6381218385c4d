"""What a process keeps of the memory its threads once took."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

COUNT_HEAPS = """
import ctypes, sys, tempfile, threading
from streams.roles import share_memory

if sys.argv[1] == "shared":
    share_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
barrier = threading.Barrier(6)

def allocate():
    barrier.wait()  # all at once: a thread takes the heap of one that has ended
    libc.malloc(ctypes.c_size_t(1000))
    barrier.wait()

threads = [threading.Thread(target=allocate) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as file:
    out = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, out)
    libc.fclose(out)
    print(file.read().count(b"<heap "))
"""


def heaps(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT_HEAPS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives each thread a heap of its own")
def test_threads_share_two_heaps() -> None:
    assert heaps("each") > 2
    assert heaps("shared") <= 2


GIVE_BACK = """
import ctypes, sys
from streams.roles import give_back_memory, share_memory

if sys.argv[1] == "shared":
    share_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def rss_kb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4

libc.free(libc.malloc(30 << 20))  # from here on glibc takes pieces up to this size from the heap
before = rss_kb()
larges = []
for _ in range(20):
    larges.append(libc.malloc(1 << 20))
    ctypes.memset(larges[-1], 1, 1 << 20)
    small = libc.malloc(1_000)  # stays, behind it
for large in larges:
    libc.free(large)
if sys.argv[1] == "given back":
    give_back_memory()
print(rss_kb() - before)
"""


def kept_kb(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", GIVE_BACK, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is free in its heaps")
def test_what_large_batches_took_is_given_back() -> None:
    assert kept_kb("kept") > 15_000
    assert kept_kb("given back") < 2_000
    assert kept_kb("shared") < 2_000  # what is large never was there


AGAIN_AND_AGAIN = """
import asyncio, sys
from pathlib import Path

from config.settings import Settings
from streams import roles

times = 0

def count():
    global times
    times += 1

async def until_twice(running):
    async with asyncio.timeout(20):
        while times < 2:
            await asyncio.sleep(0.01)
    running.stop()

roles.give_back_memory, roles.GIVE_BACK_EVERY_S = count, 0.01
asyncio.run(roles.run(Settings(data=Path(sys.argv[1]), port=0), frozenset({"collector"}), ready=until_twice))
"""


def test_a_process_gives_back_again_and_again(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", AGAIN_AND_AGAIN, str(tmp_path)], capture_output=True, text=True,
                          check=False)  # fmt: skip

    assert done.returncode == 0, done.stderr
