"""Stands in for `python` on a search path: hands its work to the fork server, and ends as that work ends.

Imports nothing but built-in modules, so that it starts in 15 ms; `tests.fork_server` copies it, says what it promises.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import marshal
import posix
import sys

FORWARDED = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGUSR1, _signal.SIGUSR2)
REAL = 1_000  # the answer for what the server leaves to the real interpreter; exit codes end at 255


def inherited() -> list[int]:
    """The open files that whoever started this process passes on."""
    numbers = []
    for number in map(int, posix.listdir("/proc/self/fd")):
        try:
            if posix.get_inheritable(number):
                numbers.append(number)
        except OSError:  # the listing's own
            continue
    return numbers


def ask(socket: _socket.socket, files: list[int]) -> None:
    """Send the request with the open files."""
    ignored = [number for number in FORWARDED if _signal.getsignal(number) == _signal.SIG_IGN]
    request = marshal.dumps((sys.argv[1:], dict(posix.environ), posix.getcwd(), files, ignored))
    rights = b"".join(number.to_bytes(4, sys.byteorder) for number in files)
    socket.sendmsg([len(request).to_bytes(8, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    socket.sendall(request)
    for number in FORWARDED:
        if number not in ignored:
            _signal.signal(number, lambda which, _: socket.send(bytes([which])))


def main(folder: str, real: str) -> None:
    """Exit code and killing signal are those of the forked process.

    Args:
        folder: of the server's socket.
        real: the interpreter.
    """
    files = inherited()
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    socket.connect(f"{folder}/socket")
    ask(socket, files)
    answer = socket.recv(8)
    if len(answer) < 8:
        posix.write(2, f"the fork server ended: its log is {folder}/log\n".encode())
        posix._exit(125)
    status = int.from_bytes(answer, "big", signed=True)
    if status == REAL:
        posix.execv(real, [real, *sys.argv[1:]])
    if status < 0:
        if -status != _signal.SIGKILL:  # which nobody can handle anyway
            _signal.signal(-status, _signal.SIG_DFL)
        posix.kill(posix.getpid(), -status)
    posix._exit(status)


if __name__ == "__main__":
    main(sys.argv[0].rpartition("/")[0], sys.executable)
