"""One connection to a node that many threads share, and a node that breaks or lies."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.chain import link as link_module
from orchestrator.chain.link import Link, RpcError, Subscription
from orchestrator.chain.rpc import RpcConnection
from orchestrator.errors import ChainMismatchError, ChainUnavailableError, ConfigError
from orchestrator.testing.scripted_node import CUT, SILENCE, Refusal, ScriptedNode, Subscribed

Connect = Callable[..., RpcConnection]


@pytest.fixture
def node() -> Iterator[ScriptedNode]:
    with ScriptedNode({"hello": "world", "silent": SILENCE}) as node:
        yield node


@pytest.fixture
def connect(node: ScriptedNode) -> Iterator[Connect]:
    """Make connections, to the scripted node unless told otherwise, that end with the test."""
    made: list[RpcConnection] = []

    def make(url: str | None = None, **options: object) -> RpcConnection:
        made.append(RpcConnection(url or node.url, **options))  # type: ignore[arg-type]  # the test's own
        return made[-1]

    yield make
    for rpc in made:
        rpc.close()


def fails_once(answer: object, then: object) -> Callable[..., object]:
    answers = iter([answer])
    return lambda *_: next(answers, then)


def saying(
    node: ScriptedNode, text: str | bytes, *, then: object = SILENCE
) -> Callable[[], object]:
    """Answer by any text, and then by what a node would send."""

    def answer() -> object:
        node.say(text)
        return then

    return answer


# Requests.


def test_a_request_gets_its_answer(connect: Connect, node: ScriptedNode) -> None:
    node.answers["add"] = lambda a, b: a + b

    assert connect().request("add", 1, 2) == 3


def test_threads_share_a_connection_and_each_gets_its_own_answer(
    connect: Connect, node: ScriptedNode
) -> None:
    """Trap B16: substrate-interface is not safe for threads."""
    node.answers["echo"] = lambda value: value
    rpc = connect()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda value: rpc.request("echo", value), range(200)))

    assert answers == list(range(200))
    assert node.connections == 1


def test_all_requests_are_sent_before_the_first_answer(
    connect: Connect, node: ScriptedNode
) -> None:
    node.answers["first"] = SILENCE
    node.answers["second"] = saying(node, '{"id": 1, "result": "late"}', then="second")

    assert connect().request_all([("first", ()), ("second", ())]) == ["late", "second"]


def test_an_error_keeps_its_code_and_its_data(connect: Connect, node: ScriptedNode) -> None:
    node.answers["bad"] = Refusal(1010, "Invalid Transaction", "Transaction is outdated")

    with pytest.raises(RpcError) as caught:
        connect().request("bad")

    assert caught.value.code == 1010
    assert str(caught.value) == (
        "the node refused bad: Invalid Transaction: Transaction is outdated (code 1010)"
    )


def test_what_a_node_says_is_short_and_harmless(connect: Connect, node: ScriptedNode) -> None:
    node.answers["bad"] = Refusal(1, "\x1b[2J" + "x" * 10_000_000)

    with pytest.raises(RpcError) as caught:
        connect().request("bad")

    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("error", ['"words"', "null", "[]", '{"code": "7"}', "{}"])
def test_an_error_of_any_form_is_one(connect: Connect, node: ScriptedNode, error: str) -> None:
    node.answers["bad"] = saying(node, f'{{"id": 1, "error": {error}}}')

    with pytest.raises(RpcError) as caught:
        connect().request("bad")

    assert caught.value.code == 0


def test_an_answer_that_does_not_come_ends_the_wait_and_the_connection(
    connect: Connect, node: ScriptedNode
) -> None:
    rpc = connect(timeout_seconds=0.1)

    with pytest.raises(ChainUnavailableError, match="did not answer silent in time"):
        rpc.request("silent")

    assert rpc.request("hello") == "world"
    assert node.connections == 2


def test_an_answer_that_comes_twice_is_taken_once(connect: Connect, node: ScriptedNode) -> None:
    node.answers["twice"] = saying(node, '{"id": 1, "result": 5}', then=5)
    rpc = connect()

    assert rpc.request("twice") == 5
    assert rpc.request("hello") == "world"


# URLs.


@pytest.mark.parametrize(
    "url", ["", "ws://", "wss://", "http://node", "ws://:1", "ws://h:x", "ws://h:99999", "ws://[x"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is not of the form ws://HOST:PORT or wss://HOST"):
        RpcConnection(url)


def test_what_a_url_holds_besides_the_host_is_in_no_message(connect: Connect) -> None:
    rpc = connect("ws://user:pass@127.0.0.1:1/key?token=x", timeout_seconds=0.1)

    with pytest.raises(ChainUnavailableError) as caught:
        rpc.open()

    assert str(caught.value).startswith("the node at ws://127.0.0.1:1 can't be reached: ")
    assert not {"user", "pass", "key", "token"} & set(str(caught.value).replace("/", " ").split())


def test_a_node_that_nobody_runs_is_named_at_once(connect: Connect) -> None:
    rpc = connect("ws://127.0.0.1:1", timeout_seconds=60)

    with pytest.raises(ChainUnavailableError, match="Connection refused"):
        rpc.open()


@pytest.mark.parametrize(
    "greeting",
    [
        b"HTTP/1.1 301 Moved\r\nLocation: ws://elsewhere.invalid/\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x00\xff\x00\xff\r\n\r\n",
        b"",
    ],
    ids=["a redirect", "a web page", "another protocol", "noise", "nothing"],
)
def test_what_is_no_node_is_unreachable(
    connect: Connect, node: ScriptedNode, greeting: bytes
) -> None:
    node.greeting = greeting

    with pytest.raises(ChainUnavailableError, match="can't be reached"):
        connect(timeout_seconds=0.2).open()


def test_a_handshake_without_an_end_is_given_up(connect: Connect, node: ScriptedNode) -> None:
    node.greeting = b"HTTP/1.1 101 Switching Protocols\r\n"
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.02):
            node.say_raw(b"X-More: 1\r\n")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        with pytest.raises(ChainUnavailableError, match="can't be reached"):
            connect(timeout_seconds=0.3).open()
    finally:
        stop.set()
        dripping.join()


# Losing the connection.


def test_a_lost_connection_is_made_anew_and_the_request_repeated(
    connect: Connect, node: ScriptedNode
) -> None:
    node.answers["cut"] = fails_once(CUT, "back")
    rpc = connect()

    assert rpc.request("cut") == "back"
    assert rpc.generation == 2


def test_a_node_that_takes_its_leave_is_left(connect: Connect, node: ScriptedNode) -> None:
    def answer() -> object:
        node.say(b"\x03\xe8", opcode=0x88)
        return SILENCE

    node.answers["leave"] = answer

    with pytest.raises(ChainUnavailableError, match="was lost: the node closed it"):
        connect().request_once("leave")


def test_a_request_that_may_have_arrived_is_not_sent_twice(
    connect: Connect, node: ScriptedNode
) -> None:
    node.answers["cut"] = CUT

    with pytest.raises(ChainUnavailableError, match="was lost"):
        connect().request_once("cut")

    assert node.count("cut") == 1


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "nonsense",
    [
        "null",
        "[]",
        "5",
        "{",
        "",
        DEEP,
        b"\xff\xfe",
        "1" * 5_000,
        '{"error": {"code": -32700, "message": "Parse error"}, "id": null}',
        '{"id": "one", "result": 1}',
        '{"id": [], "result": 1}',
        '{"jsonrpc": "2.0"}',
    ],
)
def test_nonsense_ends_the_connection_and_nobody_waits(
    connect: Connect, node: ScriptedNode, nonsense: str | bytes
) -> None:
    """The reader must not die silently: whoever waits would wait for ever."""
    node.answers["odd"] = saying(node, nonsense)
    rpc = connect(timeout_seconds=60)

    with pytest.raises(ChainUnavailableError, match="was lost"):
        rpc.request_once("odd")

    assert rpc.request("hello") == "world"


@pytest.mark.parametrize(
    "harmless",
    [
        '{"id": 77, "result": 1}',
        '{"method": "told", "params": {"subscription": "unknown", "result": 1}}',
        '{"method": "told", "params": {"subscription": [], "result": 1}}',
        '{"method": "told", "params": []}',
        '{"method": "told"}',
    ],
)
def test_what_nobody_asked_for_is_passed_over(
    connect: Connect, node: ScriptedNode, harmless: str
) -> None:
    node.answers["odd"] = saying(node, harmless, then="answer")
    rpc = connect()

    assert rpc.request("odd") == "answer"
    assert rpc.generation == 1


def test_a_message_in_several_frames_is_put_together(connect: Connect, node: ScriptedNode) -> None:
    def answer() -> object:
        node.say('{"id": 1, ', opcode=0x01)
        node.say('"result": ', opcode=0x00)
        node.say("5}", opcode=0x80)
        return SILENCE

    node.answers["parts"] = answer

    assert connect().request("parts") == 5


def test_a_message_without_an_end_is_refused(
    connect: Connect, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_LARGEST_MESSAGE", 100)

    def answer() -> object:
        node.say("[" * 60, opcode=0x01)
        node.say("[" * 60, opcode=0x00)
        return SILENCE

    node.answers["endless"] = answer

    with pytest.raises(ChainUnavailableError, match="a message without an end"):
        connect().request_once("endless")


def test_a_frame_that_says_it_is_huge_is_refused_before_it_is_read(
    connect: Connect, node: ScriptedNode
) -> None:
    def answer() -> object:
        node.say_raw(b"\x81\x7f" + (1 << 60).to_bytes(8, "big"))
        return SILENCE

    node.answers["huge"] = answer

    with pytest.raises(ChainUnavailableError, match="a message of 1152921504606846976 bytes"):
        connect().request_once("huge")


def test_a_node_that_is_silent_is_asked_whether_it_is_there(
    connect: Connect, node: ScriptedNode
) -> None:
    rpc = connect(timeout_seconds=0.4)  # so it is asked after 0.1 s
    subscription = Subscription()
    node.answers["subscribe"] = Subscribed()
    rpc.request_once("subscribe", into=subscription)

    assert subscription.get(0.35) is None

    assert node.pings >= 2
    rpc.ensure_connected()
    assert rpc.generation == 1


def test_a_connection_on_which_nothing_comes_any_more_is_lost() -> None:
    """Half open: the other side is gone, and nobody told us."""
    with ScriptedNode() as node:
        node.reads = False
        link = Link(node.url, name="node", open_seconds=1, silent_seconds=0.1)

        with pytest.raises(ChainUnavailableError, match="was lost"):
            link.request_all([("any", ())], deadline=time.monotonic() + 60)

        assert link.is_lost
        link.close()


def test_a_node_that_takes_nothing_does_not_hold_whoever_sends(node: ScriptedNode) -> None:
    node.reads = False
    link = Link(node.url, name="node", open_seconds=1, silent_seconds=0.2)

    with pytest.raises(ChainUnavailableError, match="was lost"):
        link.request_all([("much", ["x" * 30_000_000])], deadline=time.monotonic() + 60)

    link.close()


def test_requests_over_a_lost_link_are_refused(node: ScriptedNode) -> None:
    link = Link(node.url, name="node", open_seconds=1, silent_seconds=5)
    link.lose("for a test")
    link.lose("again")

    with pytest.raises(ChainUnavailableError, match="was lost: for a test"):
        link.request_all([("hello", ())], deadline=time.monotonic() + 1)

    link.close()


# Subscriptions.


def test_what_follows_a_subscription_at_once_is_not_lost(
    connect: Connect, node: ScriptedNode
) -> None:
    node.answers["subscribe"] = Subscribed([1, 2, 3])
    subscription = Subscription()

    connect().request_once("subscribe", into=subscription)

    assert [subscription.get(5) for _ in range(3)] == [1, 2, 3]


def test_a_subscription_ends_with_its_connection(connect: Connect, node: ScriptedNode) -> None:
    node.answers["subscribe"] = Subscribed()
    subscription = Subscription()
    connect().request_once("subscribe", into=subscription)

    node.cut()

    for _ in range(2):
        with pytest.raises(ChainUnavailableError, match="was lost"):
            subscription.get(5)


def test_a_subscription_that_is_ended_is_told_to_the_node_once(
    connect: Connect, node: ScriptedNode
) -> None:
    node.answers["subscribe"] = Subscribed()
    subscription, rpc = Subscription(), connect()
    rpc.unsubscribe("unsubscribe", subscription)  # not connected: nobody to tell
    rpc.forget(subscription)
    rpc.request_once("subscribe", into=subscription)

    rpc.unsubscribe("unsubscribe", subscription)
    rpc.unsubscribe("unsubscribe", subscription)

    assert rpc.request("hello") == "world"
    assert node.count("unsubscribe") == 1


def test_a_subscription_that_the_node_refuses_is_none(connect: Connect, node: ScriptedNode) -> None:
    node.answers["subscribe"] = Refusal(-32006, "Too many subscriptions")

    with pytest.raises(RpcError, match="Too many subscriptions"):
        connect().request_once("subscribe", into=Subscription())


@pytest.mark.parametrize("name", [None, {}, [], 1.5])
def test_a_subscription_without_a_name_ends_the_connection(
    connect: Connect, node: ScriptedNode, name: object
) -> None:
    node.answers["subscribe"] = name

    with pytest.raises(ChainUnavailableError, match="no name"):
        connect().request_once("subscribe", into=Subscription())


def test_a_flood_ends_the_connection(connect: Connect, node: ScriptedNode) -> None:
    node.answers["subscribe"] = Subscribed(range(2_000))
    rpc = connect()
    rpc.request_once("subscribe", into=Subscription())

    rpc.request("hello")

    assert rpc.generation == 2


# Connecting again.


def test_nobody_uses_a_connection_before_it_is_prepared(
    connect: Connect, node: ScriptedNode
) -> None:
    go_on, is_preparing = threading.Event(), threading.Event()

    def prepare(link: Link, deadline: float) -> None:
        is_preparing.set()
        go_on.wait(10)
        link.request_all([("hello", ())], deadline=deadline)

    rpc = connect(on_connect=prepare)
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(rpc.request, "hello") for _ in range(2)]
        is_preparing.wait(10)
        asked_before = len(node.requests)
        go_on.set()
        results = [answer.result(10) for answer in answers]

    assert asked_before == 0
    assert results == ["world", "world"]
    assert node.connections == 1


def test_who_waits_for_another_thread_to_connect_does_not_wait_for_ever(connect: Connect) -> None:
    go_on, is_preparing = threading.Event(), threading.Event()

    def prepare(link: Link, deadline: float) -> None:
        del link, deadline
        is_preparing.set()
        go_on.wait(10)

    rpc = connect(on_connect=prepare, timeout_seconds=0.1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(rpc.open)
        is_preparing.wait(10)
        with pytest.raises(ChainUnavailableError, match="another thread is still trying"):
            rpc.request("hello")
        go_on.set()
        first.result(10)


def test_a_connection_that_is_of_no_use_is_not_kept(connect: Connect, node: ScriptedNode) -> None:
    def refuse(link: Link, deadline: float) -> None:
        del link, deadline
        raise ChainMismatchError("another chain")

    rpc = connect(on_connect=refuse)

    for _ in range(2):
        with pytest.raises(ChainMismatchError, match="another chain"):
            rpc.request("hello")
    assert node.requests == []


def test_attempts_that_fail_are_further_and_further_apart(
    connect: Connect, node: ScriptedNode
) -> None:
    """A node that takes connections and drops them must not be asked in a tight loop."""
    node.answers["cut"] = CUT
    rpc = connect(timeout_seconds=0.5)

    with pytest.raises(ChainUnavailableError):
        rpc.request("cut")

    # At 0, 0.1 and 0.3 s.
    assert 1 <= node.connections <= 3


def test_a_long_time_after_the_last_attempt_there_is_no_pause(
    connect: Connect, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    rpc = connect()
    pauses: list[float] = []
    monkeypatch.setattr(rpc, "pause", pauses.append)
    node.answers["cut"] = fails_once(CUT, "back")
    rpc.request("hello")
    rpc._not_before -= 100

    assert rpc.request("cut") == "back"

    assert all(pause <= 0 for pause in pauses)


# Closing.


def test_closing_ends_the_wait_and_the_thread(connect: Connect, node: ScriptedNode) -> None:
    asked = threading.Event()

    def answer() -> object:
        asked.set()
        return SILENCE

    node.answers["silent"] = answer
    rpc = connect()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(rpc.request, "silent")
        assert asked.wait(10)

        rpc.close()

        with pytest.raises(ChainUnavailableError, match="it was closed"):
            waiting.result(10)
    with pytest.raises(ChainUnavailableError, match="is closed"):
        rpc.request("hello")
    assert not [one for one in threading.enumerate() if one.name == "node" and one.is_alive()]


def test_closing_ends_the_attempts_to_connect(connect: Connect) -> None:
    rpc = connect("ws://127.0.0.1:1", timeout_seconds=60)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(rpc.ensure_connected)

        rpc.close()

        with pytest.raises(ChainUnavailableError):
            waiting.result(10)


def test_closing_while_connecting_keeps_no_connection(connect: Connect) -> None:
    made: list[Link] = []

    def prepare(link: Link, deadline: float) -> None:
        del deadline
        made.append(link)
        rpc.close()

    rpc = connect(on_connect=prepare)

    with pytest.raises(ChainUnavailableError, match="the connection is closed"):
        rpc.open()

    assert made[0].is_lost
