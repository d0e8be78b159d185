"""The proxy does the harm that it was told to, to the message that was meant, and counts it."""

import json
import threading
from collections.abc import Iterator

import pytest
import websocket

from orchestrator.testing.node_proxy import (
    Fault,
    NodeProxy,
    answer_to,
    notice_of,
    request_of,
)
from orchestrator.testing.scripted_node import ScriptedNode, Subscribed

SECONDS = 20.0


class Client:
    """A WebSocket client that says what came."""

    def __init__(self, url: str) -> None:
        self._socket = websocket.create_connection(url, timeout=SECONDS)

    def ask(self, number: int, method: str, *params: object) -> None:
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}
        self._socket.send(json.dumps(request))

    def hear(self) -> object:
        """Return the next message; `None` when the connection was closed."""
        text = self._socket.recv()
        return json.loads(text) if text else None

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def node() -> Iterator[ScriptedNode]:
    answers = {"one": 1, "two": 2, "follow": Subscribed(["a", "b"])}
    with ScriptedNode(answers) as node:
        yield node


@pytest.fixture
def proxy(node: ScriptedNode) -> Iterator[NodeProxy]:
    with NodeProxy(int(node.url.rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: NodeProxy) -> Iterator[Client]:
    client = Client(proxy.url)
    yield client
    client.close()


def answer(number: int, result: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "result": result}


def asked(node: ScriptedNode) -> list[str]:
    return [method for method, _ in node.requests]


def test_hands_on_what_nothing_is_armed_for(proxy: NodeProxy, client: Client) -> None:
    client.ask(1, "one")

    assert client.hear() == answer(1, 1)
    assert proxy.requests == {"one": 1}
    assert proxy.done.total() == 0


def test_long_messages_pass_in_both_directions(node: ScriptedNode, client: Client) -> None:
    for length in (125, 126, 65_535, 65_536):
        node.answers["one"] = "x" * length
        client.ask(length, "one", "y" * length)

        assert client.hear() == answer(length, "x" * length)
        assert node.requests[-1] == ("one", ["y" * length])


def test_harm_waits_for_the_message_that_is_meant(proxy: NodeProxy, client: Client) -> None:
    armed = proxy.arm(Fault.DROP, answer_to("two", containing="this"), skip=1)
    for number, word in enumerate(("other", "this", "this", "this")):
        client.ask(number, "two", word)

    heard = [client.hear(), client.hear(), client.hear()]

    assert heard == [answer(0, 2), answer(1, 2), answer(3, 2)]
    assert armed.fired.is_set()
    assert armed.count == proxy.done[Fault.DROP] == 1


def test_a_notice_is_known_by_what_subscribed_to_it(proxy: NodeProxy, client: Client) -> None:
    proxy.arm(Fault.DROP, notice_of("follow", containing='"a"', request="mine"))
    client.ask(1, "follow", "mine")

    assert "id" in json.dumps(client.hear())
    assert '"b"' in json.dumps(client.hear())


def test_a_request_that_is_dropped_is_never_at_the_node(
    proxy: NodeProxy, client: Client, node: ScriptedNode
) -> None:
    proxy.arm(Fault.DROP, request_of("one"))
    client.ask(1, "one")
    client.ask(2, "two")

    assert client.hear() == answer(2, 2)
    assert asked(node) == ["two"]


def test_what_is_sent_twice_comes_twice(
    proxy: NodeProxy, client: Client, node: ScriptedNode
) -> None:
    proxy.arm(Fault.TWICE, answer_to("one"))
    proxy.arm(Fault.TWICE, request_of("two"))
    client.ask(1, "one")
    client.ask(2, "two")

    heard = [client.hear() for _ in range(4)]

    assert heard == [answer(1, 1)] * 2 + [answer(2, 2)] * 2
    assert asked(node) == ["one", "two", "two"]


def test_what_is_held_comes_when_it_is_released(proxy: NodeProxy, client: Client) -> None:
    armed = proxy.arm(Fault.HOLD, answer_to("one"))
    client.ask(1, "one")
    assert armed.fired.wait(SECONDS)
    client.ask(2, "two")

    armed.release()

    assert [client.hear(), client.hear()] == [answer(1, 1), answer(2, 2)]


def test_a_refusal_is_the_proxys_own(proxy: NodeProxy, client: Client, node: ScriptedNode) -> None:
    words = "w" * 200
    proxy.arm(Fault.REFUSE, request_of("one"), times=2, error=(1016, words))
    client.ask(1, "one")
    client.ask(2, "one")

    error = {"code": 1016, "message": words}
    assert client.hear() == {"jsonrpc": "2.0", "id": 1, "error": error}
    assert client.hear() == {"jsonrpc": "2.0", "id": 2, "error": error}
    assert asked(node) == []


def test_what_is_corrupted_is_no_json(proxy: NodeProxy, client: Client) -> None:
    proxy.arm(Fault.CORRUPT, answer_to("one"))
    client.ask(1, "one")

    with pytest.raises((ValueError, websocket.WebSocketException)):
        client.hear()


def test_a_reset_is_one(proxy: NodeProxy, client: Client, node: ScriptedNode) -> None:
    proxy.arm(Fault.RESET, request_of("one"))
    client.ask(1, "one")

    with pytest.raises(ConnectionResetError):
        client.hear()
    assert asked(node) == []


def test_an_end_is_no_reset(proxy: NodeProxy, client: Client) -> None:
    proxy.arm(Fault.END, answer_to("one"))
    client.ask(1, "one")

    with pytest.raises(websocket.WebSocketConnectionClosedException):
        client.hear()


def test_a_reset_afterwards_lets_the_message_pass(
    proxy: NodeProxy, client: Client, node: ScriptedNode
) -> None:
    arrived = threading.Event()

    def note(*_: object) -> int:
        arrived.set()
        return 1

    node.answers["one"] = note
    proxy.arm(Fault.RESET_AFTER, request_of("one"))
    client.ask(1, "one")

    with pytest.raises(ConnectionResetError):
        client.hear()
    assert arrived.wait(SECONDS)


@pytest.mark.parametrize(
    ("fault", "reaches_the_node"),
    [(Fault.MUTE, True), (Fault.DEAF, False), (Fault.SILENT, False)],
)
def test_a_half_open_connection_stays_and_says_nothing(
    proxy: NodeProxy,
    client: Client,
    node: ScriptedNode,
    fault: Fault,
    reaches_the_node: bool,
) -> None:
    arrived = threading.Event()

    def note(*_: object) -> int:
        arrived.set()
        return 2

    node.answers["two"] = note
    armed = proxy.arm(fault, request_of("one"))
    seen = proxy.arm(Fault.NONE, request_of("two"))
    client.ask(1, "one")
    client.ask(2, "two")
    assert armed.fired.wait(SECONDS)
    assert seen.fired.wait(SECONDS)
    if reaches_the_node:
        assert arrived.wait(SECONDS)
    proxy.cut()

    with pytest.raises(ConnectionResetError):
        client.hear()
    assert asked(node) == (["one", "two"] if reaches_the_node else [])


def test_without_a_node_nobody_is_let_in(node: ScriptedNode, proxy: NodeProxy) -> None:
    node.close()

    with pytest.raises((OSError, websocket.WebSocketException)):
        Client(proxy.url)


def test_ends_with_all_its_threads(proxy: NodeProxy, client: Client) -> None:
    proxy.arm(Fault.HOLD, answer_to("one"))
    client.ask(1, "one")

    proxy.close()

    assert not any(thread.name == "node-proxy" for thread in threading.enumerate())
