"""Joining MXNet's parameter server: what is wrong is said, and nobody waits without end."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from conftest import ROOT, failure

import bert  # noqa: F401 (prepares for MXNet)
from bert.distributed import connection

GREETING = b'\xff\0\0\0\0\0\0\0\x01\x7f'  # ZMTP 3.0, section "greeting"
# Calls what C++ calls for an exception that nothing catches, from another thread, as MXNet's are.
TERMINATE = """
import ctypes, sys, threading, time
from bert.distributed.connection import report_termination
sys.argv[0] = 'run_pretraining.py'
report_termination('server')
threading.Thread(target=ctypes.CDLL('libstdc++.so.6')['_ZSt9terminatev']).start()
time.sleep(60)
"""


@pytest.fixture
def listener(monkeypatch):
    """Listen at the scheduler's port; return the socket."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen()
        monkeypatch.setenv('DMLC_PS_ROOT_URI', '127.0.0.1')
        monkeypatch.setenv('DMLC_PS_ROOT_PORT', str(listener.getsockname()[1]))
        monkeypatch.setenv('DMLC_NUM_SERVER', '1')
        monkeypatch.setenv('DMLC_NUM_WORKER', '2')
        monkeypatch.setattr(connection, 'LOOK', 0.1)
        yield listener


def greet(listener, greeting):
    """Send everyone who connects a greeting, until the listener is closed."""

    def answer():
        while True:
            try:
                accepted = listener.accept()[0]
            except OSError:
                return
            accepted.sendall(greeting)
            accepted.close()

    threading.Thread(target=answer, daemon=True).start()


def test_the_scheduler_does_not_wait_with_a_port_that_is_taken(listener, monkeypatch):
    monkeypatch.setenv('DMLC_ROLE', 'scheduler')
    port = listener.getsockname()[1]
    assert failure(connection.connect) == (
        f'the scheduler of dist_sync cannot listen at 127.0.0.1:{port} (Address already in use): '
        'DMLC_PS_ROOT_URI must be an address of its machine, and DMLC_PS_ROOT_PORT free'
    )
    listener.close()
    connection.check_listening()


@pytest.mark.parametrize(
    ('greeting', 'expected'),
    [
        (GREETING, 'scheduler'),
        (b'HTTP/1.1 400 Bad Request', 'other'),
        (b'\xff', 'other'),
        (b'', 'other'),
    ],
)
def test_who_listens(listener, greeting, expected):
    greet(listener, greeting)
    assert connection.look_at_scheduler() == expected


def test_a_silent_program_and_nobody(listener):
    assert connection.look_at_scheduler() == 'other'
    listener.close()
    assert connection.look_at_scheduler() is None


class Left(Exception):
    """Raised in place of ending the process."""


def watch(monkeypatch, answers):
    """Watch a port with the given answers; return the sentence, or None at the end of them."""
    answers, sentences = iter(answers), []

    def leave(sentence):
        sentences.append(sentence)
        raise Left

    monkeypatch.setattr(connection, 'look_at_scheduler', lambda: next(answers))
    monkeypatch.setattr(connection, 'leave', leave)
    monkeypatch.setattr(connection, 'LOOK', 0)
    try:
        connection.watch_port('worker', lambda: False, threading.Event())
    except (Left, StopIteration):
        return sentences[0] if sentences else None


def test_who_waits_for_the_others_ends_if_the_scheduler_does(listener, monkeypatch, caplog):
    address = connection.scheduler_address()
    gone = f'worker of dist_sync: the scheduler at {address} has ended'
    other = (
        f'worker of dist_sync: a program other than the scheduler listens at {address}: choose '
        'another DMLC_PS_ROOT_PORT'
    )
    assert watch(monkeypatch, [None] * 50) is None  # it may come much later
    assert watch(monkeypatch, [None, 'scheduler', None, 'scheduler', None]) is None
    assert watch(monkeypatch, ['scheduler', None, None]) == gone
    assert watch(monkeypatch, [None, 'other', 'other']) == other
    assert watch(monkeypatch, ['other', 'scheduler', 'other', 'scheduler']) is None
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(connection, 'PATIENCE', 0)
    watch(monkeypatch, [None] * 3)
    assert caplog.messages == [
        f'this worker of dist_sync waits for the others: scheduler at {address}, servers 1, '
        'workers 2'
    ]


def test_signals_end_a_worker_that_waits(listener, monkeypatch):
    """Handlers in Python would not be called before MXNet's function returns."""
    import mxnet as mx

    numbers = (signal.SIGTERM, signal.SIGINT)
    seen = []

    def create(kind):
        seen.append([signal.getsignal(number) for number in numbers])
        return kind

    def handle(number, frame):
        raise AssertionError('not called')

    before = [signal.signal(signal.SIGTERM, handle), signal.signal(signal.SIGINT, signal.SIG_IGN)]
    monkeypatch.setenv('DMLC_ROLE', 'worker')
    monkeypatch.setattr(mx.kv, 'create', create)
    monkeypatch.setattr(connection, 'report_termination', lambda role: None)
    try:
        assert connection.connect() == 'dist_sync'
        assert [signal.getsignal(number) for number in numbers] == [handle, signal.SIG_IGN]
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)
    assert seen == [[signal.SIG_DFL, signal.SIG_IGN]]  # an ignored one stays ignored


@pytest.mark.skipif(sys.platform != 'linux', reason='another C++ library')
def test_an_exception_of_a_thread_of_mxnet_is_one_sentence():
    done = subprocess.run(
        [sys.executable, '-c', TERMINATE],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (
        1,
        'run_pretraining.py: error: server of dist_sync: MXNet could not process what it '
        'received, such as data from another program that connected to its port: start all '
        'processes again, and keep the ports private\n',
    )
