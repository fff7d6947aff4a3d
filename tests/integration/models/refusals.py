"""What tests of bundles ask of a refusal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from batchscore.errors import Refused


def reason(call: Callable[[], object]) -> str:
    """Why ``call`` is refused."""
    with pytest.raises(Refused) as caught:
        call()
    assert caught.value.remedy, "a refusal says how to mend it"
    return caught.value.reason
