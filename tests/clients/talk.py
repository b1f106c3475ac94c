#!/usr/bin/env python3
"""A line client over PyPI `websockets`; talk.mjs is its twin over npm `ws`, word for word the same outside.

    talk.py URL [SUBPROTOCOL...]

Standard output, one event a line:
    open [SUBPROTOCOL]     the upgrade succeeded, with the subprotocol that the server chose
    refused STATUS         the upgrade was answered with this HTTP status
    recv TEXT              a text message
    binary LENGTH          a binary message
    close CODE [REASON]    the connection is over
Standard input: each line is sent as one text message. `quit`, or the end of input, closes with 1000.

Exit status: 0 after a close handshake, whoever began it; 1 after `refused`, a lost connection (code 1006)
or no connection at all; 2 for wrong arguments.
"""

import sys
import threading

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect


def main(argv):
    if len(argv) < 2:
        print("usage: talk.py URL [SUBPROTOCOL...]", file=sys.stderr)
        return 2
    try:
        with connect(argv[1], subprotocols=argv[2:] or None, proxy=None) as socket:
            say("open", socket.subprotocol or "")
            threading.Thread(target=send_lines, args=(socket,), daemon=True).start()
            return receive(socket)
    except InvalidStatus as refusal:
        say("refused", refusal.response.status_code)
    except Exception as error:
        print(f"cannot connect: {error}", file=sys.stderr)
    return 1


def receive(socket):
    try:
        while True:
            message = socket.recv()
            if isinstance(message, str):
                say("recv", message)
            else:
                say("binary", len(message))
    except ConnectionClosed:
        say("close", socket.close_code, socket.close_reason or "")
    return 1 if socket.close_code == 1006 else 0


def send_lines(socket):
    try:
        for line in sys.stdin:
            line = line.rstrip("\n")
            if line == "quit":
                break
            socket.send(line)
        socket.close()
    except ConnectionClosed:
        pass  # the receiving side reports it


def say(*words):
    print(" ".join(str(word) for word in words).rstrip(" "), flush=True)


sys.exit(main(sys.argv))
