"""What the tests of published files share."""

import pytest

from tests.published import conversions


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return conversions(tmp_path_factory)
