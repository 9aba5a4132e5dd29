"""A broker with a controller that a test commands, for agents as real processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    # Needs more than the base install, with which this folder is collected too.
    from tests.fake_controller import FakeBroker, FakeController


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeBroker]:
    from tests.fake_controller import FakeBroker

    broker = FakeBroker(tmp_path_factory.mktemp("broker"))
    yield broker
    broker.stop()


@pytest.fixture
def controller(broker: FakeBroker) -> Iterator[FakeController]:
    from tests.fake_controller import FakeController

    controller = FakeController(broker.broker)
    yield controller
    controller.close()
