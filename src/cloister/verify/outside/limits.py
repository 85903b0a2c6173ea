"""Limits, each in a throw-away sandbox with small ones: so what is tried is cheap, and harms nobody if it succeeds.

K-6: memory and CPU. FS-7: a fork bomb.
"""

from __future__ import annotations

from cloister.verify.inside.talk import Probe, RefusedError
from cloister.verify.outside.names import succeeded
from cloister.verify.outside.world import Done, World

_MEMORY = "128m"
_LESS_MIB, _MORE_MIB = 16, 512
_CPUS = "0.2"
_CPUS_SUSPECT = 0.4  # of a busy machine a free process gets more than this, and a limited one half of it
_PROCESSES = 48
_SLACK = 4  # the runtime's own processes in the sandbox
_NOT_HELD = "does not hold"  # what a session says of a limit that nothing holds here
_ALLOCATE = """
import os, sys
pid = os.fork()
if pid == 0:
    try:
        block = b"x" * (int(sys.argv[1]) << 20)
    except MemoryError:
        os._exit(7)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
_BURN = """
import os, time
def burn():
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        pass
begin = time.monotonic()
pid = os.fork()
burn()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
used = sum(os.times()[:4])
print(used / (time.monotonic() - begin))
"""
_FORKS = 160  # if no limit holds: the host must live on
# Every process forks, and so does every child of it, in sessions of their own; the first one counts them at the end.
_BOMB = f"""
import os, time
first, end, refused = os.getpid(), time.monotonic() + 0.7, 0
left, right = os.pipe()
os.set_blocking(left, False)
os.write(right, bytes({_FORKS}))
while time.monotonic() < end:
    try:
        os.read(left, 1)
        if os.fork() == 0:
            os.setsid()
    except OSError:
        refused += 1
        time.sleep(0.05)
if os.getpid() != first:
    time.sleep(30)
    os._exit(0)
print(len([one for one in os.listdir("/proc") if one.isdigit()]), refused)
"""


def memory_and_cpu(found: Probe, world: World) -> None:
    """A child that takes more than the limit gets an error or is killed; two that spin get no more than their share."""
    project = world.project("limits")
    where = ("run", "-C", project.workspace, f"--memory={_MEMORY}", f"--cpus={_CPUS}", "--")
    script = ("python3", "-I", "-c")
    less = world.cloister(*where, *script, _ALLOCATE, str(_LESS_MIB))
    found.control(f"a child takes {_LESS_MIB} MiB", succeeded, less.out.strip() == "0", _told(less))
    found.attack(
        f"a child takes {_MORE_MIB} MiB, and the limit is {_MEMORY}",
        _allocated,
        world.cloister(*where, *script, _ALLOCATE, str(_MORE_MIB)),
    )
    burnt = world.cloister(*where, *script, _BURN)
    if _NOT_HELD in less.err:
        found.note(
            "no cgroup is delegated here: memory is limited for each process, and CPU is not (cloister doctor)"
        )
        return
    found.control("two processes spin", succeeded, _number(burnt) > 0, _told(burnt))
    found.attack(f"they take more than {_CPUS} processors", _spent, burnt)


def fork_bomb(found: Probe, world: World) -> None:
    """Every process forks without end: no more come to be than the limit, and all end with the first one."""
    project = world.project("bomb")
    where = ("run", "-C", project.workspace, f"--pids={_PROCESSES}", "--")
    done = world.cloister(*where, "python3", "-I", "-c", _BOMB)
    number = _number(done)
    found.control("it goes off", succeeded, number > _PROCESSES // 2, _told(done))
    found.attack(f"more than {_PROCESSES} processes", _more, number)
    found.attack("something of the sandbox outlives it", _outlives, world)


def _allocated(done: Done) -> str:
    if done.out.strip() == "0":
        return "it has them"
    raise RefusedError(_told(done))


def _spent(done: Done) -> str:
    if _number(done) > _CPUS_SUSPECT:
        return f"{_number(done):.2f} processors"
    raise RefusedError(f"{_number(done):.2f} processors")


def _more(number: float) -> str:
    if number > _PROCESSES + _SLACK:
        return f"{number:g} processes"
    raise RefusedError(f"{number:g} processes")


def _outlives(world: World) -> str:
    left = world.records()
    if left:
        return f"the sandbox {left[0].sandbox_id!r}"
    raise RefusedError("nothing")


def _number(done: Done) -> float:
    """The first one that it printed; 0 if it printed none."""
    try:
        return float(done.out.split()[0])
    except (IndexError, ValueError):
        return 0.0


def _told(done: Done) -> str:
    return f"{done.out.strip()[:80]} ({done.said})"
