"""The OpenAPI document: what the API takes and answers, told to programs and people."""
