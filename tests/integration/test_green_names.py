"""Names are looked up aside: a name server that does not answer stops no green thread."""

from __future__ import annotations

from tests.node_process import run_script

CHECK = """
import socket, sys
from _thread import allocate_lock

answer = allocate_lock()
answer.acquire()
real = socket.getaddrinfo

def look_up(host, port, family=0, type=0, proto=0, flags=0):
    if not flags & socket.AI_NUMERICHOST:
        answer.acquire()  # the name server answers when the main thread lets it
    return real(host, port, family, type, proto, flags)

socket.getaddrinfo = look_up
from server import runtime
runtime.patch("eventlet")

import threading
server = runtime.listen("127.0.0.1", 0)
port = server.getsockname()[1]
socket.create_connection(("127.0.0.1", port)).close()  # an address waits for nobody
found = []
def connect():
    found.append(socket.create_connection(("localhost", port)))

waiting = threading.Thread(target=connect)
waiting.start()
waiting.join(0.05)
assert not found
answer.release()
waiting.join()
assert found[0].getpeername() == ("127.0.0.1", port)
print(sorted(name for name in sys.modules if name.partition(".")[0] == "dns"))
"""


def test_a_slow_name_server_stops_nobody() -> None:
    done = run_script(CHECK)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
