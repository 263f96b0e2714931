"""Commands in processes that are forked from one which has torch and the like loaded: there at once, else as any other.

    with forked.server() as run:
        done = run("helpers.doctor", ["--profile", "tiny"], os.environ | {"HF_HOME": str(home)})

Every process has the environment it is given. Whatever reads the environment when it is imported (the hub's clients,
transformers, sae-lens, our own package) the first process of an environment imports for itself, and a second server,
which is forked for this environment and forks in its turn, once for all others. So it is for the kernels of the
notebooks that one of them runs: the interpreter they are told to start is this file, which asks the same server for a
process.
"""

import atexit
import contextlib
import gc
import hashlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback

LOADED = (
    "torch._dynamo", "torch.distributed.tensor", "torch.fx.experimental.symbolic_shapes", "pandas", "pyarrow.parquet",
    "matplotlib.pyplot", "seaborn", "scipy.optimize", "sympy", "pydantic", "safetensors.torch", "aiohttp", "fsspec",
    "multiprocess", "wandb", "httpx", "requests", "einops", "jaxtyping", "plotly.express", "joblib",
    "ipykernel.kernelapp", "ipykernel.ipkernel", "papermill", "nbclient",
    "anyio.abc._sockets",  # cannot be imported once nnsight has given every object a method `save`
)  # fmt: skip
ANEW = {"huggingface_hub", "transformers", "datasets", "nnsight", "sae_lens", "transformer_lens", "helpers"}
ALL_OF_THEM = "helpers.lab.lab"  # it imports all of these
# What is told to one process or one test, and read by nothing in ANEW.
OF_ONE_PROCESS = ("JPY_", "JUPYTER_", "PYTEST_")


# --- who asks ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server():
    """A running server, as a function that runs a module: (module, arguments, environment) -> code and what it said."""
    import subprocess
    import tempfile
    from pathlib import Path

    root = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as folder:
        place, launcher = f"{folder}/socket", Path(folder) / "python"
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" "{place}" "$@"\n')
        launcher.chmod(0o755)
        fixed = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}  # read when a process starts, so the same for all
        command = [sys.executable, "-m", "tests.forked", place]
        log = Path(folder) / "log"
        with log.open("wb") as written:
            served = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stderr=written, env=os.environ | fixed)

        def run(module, arguments, environment):
            while not os.path.exists(place):
                assert served.poll() is None, log.read_text()
                time.sleep(0.05)
            with tempfile.TemporaryFile() as said, open(os.devnull) as nothing:
                fds = (nothing.fileno(), said.fileno(), said.fileno())
                try:
                    code = ask(place, module, arguments, dict(environment), str(root), str(launcher), fds)
                except ConnectionError:
                    raise RuntimeError(f"{module} was lost: server {served.poll()}, {log.read_text()}") from None
                said.seek(0)
                return code, said.read().decode()

        try:
            yield run
        finally:
            served.stdin.close()
            served.wait()


def ask(place, module, arguments, environment, folder, executable, fds):
    """Have a module run by the server, and wait for its exit code; signals are passed on."""
    request = {"module": module, "arguments": arguments, "environment": environment, "folder": folder,
               "executable": executable}  # fmt: skip
    text = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(place)
        asked.sendall(_digest(environment))
        socket.send_fds(asked, [struct.pack("!Q", len(text))], fds)
        asked.sendall(text)
        pid = struct.unpack("!q", _received(asked, 8))[0]
        if threading.current_thread() is threading.main_thread() and executable is None:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda number, frame: os.kill(pid, number))
        return struct.unpack("!q", _received(asked, 8))[0]


def _digest(environment):
    """32 bytes that are the same for processes that may share what ANEW names."""
    lasting = sorted(pair for pair in environment.items() if not pair[0].startswith(OF_ONE_PROCESS))
    return hashlib.sha256(json.dumps(lasting).encode()).digest()


def _received(connection, n):
    data = b""
    while len(data) < n:
        part = connection.recv(n - len(data))
        if not part:
            raise ConnectionError("the other end has gone")
        data += part
    return data


def as_interpreter(place, arguments):
    """What `python -m module ...` is, for who takes this file for an interpreter."""
    assert arguments[0] == "-m", arguments
    # the kernel's parent is another than who started it, and it would end itself for that
    environment = {name: value for name, value in os.environ.items() if name != "JPY_PARENT_PID"}
    return ask(place, arguments[1], arguments[2:], environment, os.getcwd(), None, (0, 1, 2))


# --- who answers ------------------------------------------------------------------------------------------------------


def serve(place):
    """Answer until standard input is closed; returns in the server alone."""
    for name in LOADED:
        importlib.import_module(name)
    assert not ANEW & set(sys.modules), ANEW & set(sys.modules)
    gc.collect()
    gc.freeze()
    # nobody waits for those who answer
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place + ".new")
        listener.listen(64)
        os.rename(place + ".new", place)
        seconds = {}
        while True:
            ready, _, _ = select.select([listener, 0], [], [])
            if 0 in ready:
                return
            connection, _ = listener.accept()
            digest = _received(connection, 32)
            if digest not in seconds:
                seconds[digest], other = socket.socketpair()
                if not os.fork():
                    listener.close()
                    for end in seconds.values():
                        end.close()
                    serve_one_environment(other)
                other.close()
            socket.send_fds(seconds[digest], [b"+"], [connection.fileno()])
            connection.close()


def serve_one_environment(asked):
    """Answer the connections that come through a socket, all of one environment, until its other end is closed."""
    before = 0
    try:
        while fds := socket.recv_fds(asked, 1, 1)[1]:
            with socket.socket(fileno=fds[0]) as connection:
                head, streams, _, _ = socket.recv_fds(connection, 8, 3)
                request = json.loads(_received(connection, struct.unpack("!Q", head)[0]))
                if before == 1:  # what is asked for once may need little of it
                    enter(request)
                    importlib.import_module(ALL_OF_THEM)
                    assert set(sys.modules) >= ANEW and threading.active_count() == 1, threading.enumerate()
                    gc.collect()
                    gc.freeze()
                before += 1
                if not os.fork():
                    asked.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    answer(connection, request, streams)
                for fd in streams:
                    os.close(fd)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def answer(connection, request, fds):
    """Run what is asked for in a process of its own, and say how it ended; who asks and goes away ends it."""
    pid = os.fork()
    if not pid:
        connection.close()
        work(request, fds)
    try:
        connection.sendall(struct.pack("!q", pid))
        for fd in fds:
            os.close(fd)
        connection.sendall(struct.pack("!q", _ended(pid, connection)))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def _ended(pid, connection):
    """The exit code of a process, which is killed when the other end of the connection goes away."""
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if select.select([connection], [], [], 0.02)[0]:
            print(f"who asked for {pid} has gone", file=sys.stderr)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def enter(request):
    """The folder and the environment that are asked for, also for what was imported before it."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if "MPLBACKEND" in os.environ:
        sys.modules["matplotlib"].rcParams["backend"] = os.environ["MPLBACKEND"]


def work(request, fds):
    """Be the process that was asked for."""
    os.setsid()
    for fd, own in zip(fds, (0, 1, 2), strict=True):
        os.dup2(fd, own)
    enter(request)
    sys.argv = [request["module"], *request["arguments"]]
    sys.executable = request["executable"] or sys.executable
    code = 1
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        sys.exit(as_interpreter(sys.argv[1], sys.argv[2:]))
