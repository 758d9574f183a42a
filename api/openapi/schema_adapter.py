"""How APIFlask's `input` and `output` treat our models.

APIFlask's own adapter answers 422 with all errors at once, and rebuilds each response through its model. The
contract wants the first error in its order (schemas.py), and the fields of a response as the view wrote them;
the tests compare both with the document.
"""

from typing import Any

from apiflask.schema_adapters import registry
from apiflask.schema_adapters.pydantic import PydanticAdapter
from flask import Request, current_app

from api import schemas


class ContractAdapter(PydanticAdapter):
    """Parses a body by the contract's rules, and leaves a response unchanged."""

    model_class: type[schemas.Body]

    def validate_input(self, request: Request, location: str, **kwargs: Any) -> Any:
        """Parse the JSON body. Raises BadRequest, and HTTP 411, 413, 415."""
        min_coins = current_app.config["SETTINGS"].min_withdrawal_coins
        return schemas.parse_body(self.model_class, min_withdrawal_coins=min_coins)

    def serialize_output(self, data: Any, many: bool = False) -> Any:
        """Return the data unchanged."""
        return data


registry.register("pydantic", ContractAdapter)
