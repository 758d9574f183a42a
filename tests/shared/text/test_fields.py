"""Fields of requests: a bank account in place of a UPI id gets its own error."""

import pytest
from pydantic_core import PydanticCustomError

from shared.text import fields


@pytest.mark.parametrize(
    ("text", "is_bank_account"),
    [
        (" 50100012345678@HDFC0000001.ifsc.npci ", True),
        ("50100012345678@hdfc0000001.IFSC.npci", True),
        ("user@ba.nk", False),
        ("@HDFC0000001.ifsc.npci", False),
    ],
)
def test_a_bank_account_written_as_a_upi_id_gets_its_own_error(text: str, is_bank_account: bool) -> None:
    with pytest.raises(PydanticCustomError) as refused:
        fields.parse_upi_id(text)
    assert ("pay to a bank account" in str(refused.value.context)) is is_bank_account
