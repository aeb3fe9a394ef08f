"""A program that copies between its standard input and output and a Unix socket, as `ssh -W` does.

python stdio_relay.py path [bytes in a piece]
"""

from __future__ import annotations

import os
import socket
import sys
import threading


def copy_out(sock: socket.socket, size: int) -> None:
    while data := sock.recv(size):
        while data:
            data = data[os.write(1, data) :]
    if not os.path.samestat(os.fstat(0), os.fstat(1)):
        os.close(1)
        return
    with socket.socket(fileno=os.dup(1)) as both:
        both.shutdown(socket.SHUT_WR)


def main(path: str, size: int) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    out = threading.Thread(target=copy_out, args=(sock, size), daemon=True)
    out.start()
    try:
        while data := os.read(0, size):
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        out.join()
    except OSError:
        pass  # either side has gone


main(sys.argv[1], int((sys.argv[2:] or ["65536"])[0]))
