"""The guest agent's protocol, with an agent of ours at the other end of real pipes."""

import base64
import contextlib
import itertools
import json
import os
import threading
import time

import pytest

from lago_images.building.boot import guest_agent
from lago_images.building.boot.guest_agent import Agent
from lago_images.errors import BootError


@pytest.fixture
def talk():
    """Give an agent that answers as ``answer(message)`` says, noise before each sync included."""
    opened, threads = [], []

    def start(answer, *, lose=0):
        to_guest, to_host = os.pipe(), os.pipe()
        opened.extend([*to_guest, *to_host])

        def serve():
            left = lose
            with os.fdopen(os.dup(to_guest[0]), "rb") as lines:
                for line in lines:
                    if left:
                        left -= 1
                        continue
                    message = json.loads(line.strip(b"\xff\n"))
                    if line.startswith(b"\xff"):
                        os.write(to_host[1], b'{"error": {"desc": "stray"}}\n\xff')
                    for reply in answer(message):
                        os.write(to_host[1], json.dumps(reply).encode() + b"\n")

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return Agent(send=to_guest[1], receive=to_host[0], clock=time.monotonic)

    yield start
    # The threads read to the end; what they write to is theirs until then.
    for fd in opened[1::4]:
        os.close(fd)
    for thread in threads:
        thread.join()
    for fd in opened[0::4] + opened[2::4] + opened[3::4]:
        os.close(fd)


def answers(message):
    arguments = message.get("arguments", {})
    match message["execute"]:
        case "guest-sync-delimited":
            yield {"return": arguments["id"]}
        case "guest-exec" if arguments["path"] == "/bin/echo":
            yield {"return": {"pid": 7}}
        case "guest-exec" if arguments["path"] == "/bin/false":
            yield {"return": {"pid": 8}}
        case "guest-exec-status" if arguments["pid"] == 7:
            out = base64.b64encode(b"hello\n").decode()
            yield {"return": {"exited": True, "exitcode": 0, "out-data": out}}
        case "guest-exec-status":
            why = base64.b64encode(b"no such\nunit\n").decode()
            yield {"return": {"exited": True, "exitcode": 1, "err-data": why}}
        case other:
            yield {"error": {"desc": f"no {other}"}}


def until_there(agent, tries=1000):
    return any(agent.is_answering() for _ in range(tries))


def test_an_agent_is_found_and_runs_a_program(talk):
    agent = talk(answers)
    assert until_there(agent)
    agent.settle(timeout=300)
    assert agent.run(["/bin/echo", "hello"], timeout=300) == b"hello\n"


def test_a_silent_port_has_no_agent(talk):
    agent = talk(lambda message: [])
    assert not until_there(agent, tries=2)


def test_answers_to_other_requests_are_ignored(talk):
    agent = talk(lambda message: [{"return": -1}, ["what"], {"return": {}}])
    assert not until_there(agent, tries=3)


def test_a_lost_request_is_sent_again(talk):
    times = itertools.count(0, 3)
    agent = talk(answers, lose=2)
    agent.clock = lambda: float(next(times))
    assert until_there(agent)


def test_a_refused_command_is_reported_with_the_reason(talk):
    agent = talk(answers)
    assert until_there(agent)
    with pytest.raises(BootError, match=r"refuses guest-exec: .*no guest-exec"):
        agent.run(["/bin/other"], timeout=300)


def test_a_failing_program_is_an_error(talk):
    agent = talk(answers)
    assert until_there(agent)
    agent.settle(timeout=300)
    with pytest.raises(
        BootError, match=r"^/bin/false failed in the guest: exit 1: no such / unit$"
    ):
        agent.run(["/bin/false"], timeout=300)


def test_a_program_reads_what_it_is_given(talk):
    def echoes(message):
        arguments = message.get("arguments", {})
        if message["execute"] == "guest-exec":
            given.append(base64.b64decode(arguments["input-data"]))
            yield {"return": {"pid": 7}}
        else:
            yield from answers(message)

    given = []
    agent = talk(echoes)
    assert until_there(agent)
    agent.settle(timeout=300)
    agent.run(["/bin/cat"], timeout=300, stdin=b"\0hello")
    assert given == [b"\0hello"]


def test_a_machine_that_has_ended_is_not_waited_for():
    """Its port is closed: an hour's test would else be waited for to its end."""
    (_, send), (receive, other) = os.pipe(), os.pipe()
    os.close(other)
    agent = Agent(send=send, receive=receive, clock=lambda: 0.0)
    with pytest.raises(BootError, match="the machine ended before the guest agent answered"):
        agent.settle(timeout=3600)
    with pytest.raises(BootError, match="ended before the guest agent answered guest-exec"):
        agent.run(["/bin/true"], timeout=3600)
    os.close(send)
    os.close(receive)


def test_an_answer_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr(guest_agent, "_LARGEST", 2**17)
    (receive, send), (unread, asked) = os.pipe(), os.pipe()
    endless = threading.Thread(target=pour, args=(send,))
    endless.start()
    agent = Agent(send=asked, receive=receive, clock=lambda: 0.0)
    with pytest.raises(BootError, match="an answer without an end"):
        agent.settle(timeout=300)
    os.close(receive)
    endless.join()
    for end in (send, unread, asked):
        os.close(end)


def pour(end):
    with contextlib.suppress(BrokenPipeError):
        while True:
            os.write(end, b"x" * 2**16)


@pytest.mark.parametrize(
    "answer", [None, [], 7, {"pid": 1, "exited": True, "exitcode": 0, "out-data": "a"}]
)
def test_an_answer_that_makes_no_sense_is_no_fault_of_ours(talk, answer):
    agent = talk(lambda message: [{"return": message.get("arguments", {}).get("id", answer)}])
    with pytest.raises(BootError):
        agent.run(("/bin/true",), timeout=5)


def test_an_answer_that_is_nested_too_deeply_is_noise():
    assert guest_agent._parsed(b"[" * 200_000) is None
