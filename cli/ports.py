"""Ports of this machine."""

import socket

from cli.errors import CommandFailedError


def free_port(host: str) -> int:
    """A port of `host` that nobody listens on right now."""
    with bound(host, 0) as listener:
        return int(listener.getsockname()[1])


def refuse_taken_port(host: str, port: int) -> None:
    """Nothing when `port` is free; CommandFailedError that names another way when it is not."""
    try:
        bound(host, port).close()
    except OSError as error:
        raise CommandFailedError(
            f"cannot listen on port {port} of {host}",
            detail=error.strerror or str(error),
            remedy="stop what listens there, or choose another port",
            next_command=f"condu serve --port {port + 1}",
        ) from error


def bound(host: str, port: int) -> socket.socket:
    """A socket that holds the port, as a server that restarts would take it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
