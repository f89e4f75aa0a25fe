"""The words that compiled programs, calls from Python and the thread pool share: the table of a call and the pool's control block.

Everything is an int64. This is the one place that says where each word lies; native code takes the numbers from here.
"""

from __future__ import annotations

# --- The table of a call. `program(table, thread, threads)` gets its address; one call at a time may use it.
TABLE_PROGRAM = 0  # address of the program, in Numba's ABI: int32 f(i8* result, i8** error, i64 table, i64 thread, i64 threads)
TABLE_CONTROL = 1  # address of a pool's control block, or 0: run on the calling thread alone
TABLE_THREADS = 2  # below 2: run on the calling thread alone; otherwise on all threads of the pool
TABLE_FREE = 3  # first word that belongs to the code generator
TABLE_STAMPS = 7  # of a timed program: address of its threads' rows of stamps

# --- The control block of a pool: int64 words, 64-byte aligned. Words that different threads write lie on different cache lines.
# Line 0 is written by the caller of a section and read by its workers, so that waking them moves one line.
EPOCH = 0  # number of the section; raised (release) once the three words after it are set. Workers sleep on its low half
PROGRAM = 1  # of the section; 0 tells the workers to leave
TABLE = 2
THREADS = 3  # threads of the pool, the caller among them
SPIN_NS = 4  # how long a worker spins for the next section before it sleeps; negative: for ever
SECTION_SPIN_NS = 5  # the same within a section: at barriers, and for the caller that waits for the last worker
READY = 6  # 1 while the workers are inside the native loop
START = 7  # borrowed PyObject*, called with nothing (GIL held) when a section finds READY = 0; or 0
SLEEPERS = 8  # workers asleep on EPOCH
DONE = 16  # sections finished, summed over workers (released by each)
STATUS = 17  # a worker's non-zero status, or 0
DONE_SLEEPERS = 24  # callers asleep on DONE
LOCK = 32  # 1 while a section runs
TARGET = 33  # the value of DONE that ends the section
ENTERED = 34  # workers inside the native loop
SECTIONS = 35  # sections run on all threads
ALONE = 36  # calls that found the pool busy or not ready, and ran on their own thread
ARRIVED = 40  # threads waiting at the barrier
GENERATION = 48  # barriers passed; threads sleep on its low half
BARRIER_SLEEPERS = 56
BARRIER_CODE = 64  # address of `void f(i64 control, i64 threads)`; see barrier.py
WORDS = 72
