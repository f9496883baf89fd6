"""Servers that tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes import Fake, FakePod


@pytest.fixture
def fake() -> Iterator[Fake]:
    """A coordinator and two nodes that do what a test sets."""
    servers = Fake()
    yield servers
    servers.stop()


@pytest.fixture
def fake_pod() -> Iterator[FakePod]:
    """An inference pod that does what a test sets."""
    server = FakePod()
    yield server
    server.stop()
