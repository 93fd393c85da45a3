"""What a refused body is answered."""

from __future__ import annotations

import pytest

from api.common.validation import METADATA, Validators, obj
from core.errors import BadRequest

_BODY = obj({"servers": {"type": "array", "items": obj({"metadata": METADATA})}})


@pytest.mark.parametrize("key", ["a", "0", "007", "10"])
def test_the_field_is_named_as_the_body_spells_it(key: str) -> None:
    with pytest.raises(BadRequest) as refused:
        Validators().check(_BODY, {"servers": [{}, {"metadata": {key: None}}]})
    assert refused.value.message.startswith(
        f"Invalid input for field/attribute servers/1/metadata/{key}. Value: None."
    )
