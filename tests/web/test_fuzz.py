"""The REST routes under made-up requests: every answer is one that the description names."""

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from web_server import RunningServer

# Whether bytes are an image is not for the schema to say, so "valid" requests may be refused.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]


def test_made_up_requests_get_described_answers(server: RunningServer) -> None:
    schema = schemathesis.openapi.from_url(f"{server.address}openapi.json")
    seen: set[int] = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=20,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            answer = case.call(timeout=60)
            seen.add(answer.status_code)
            case.validate_response(answer, checks=CHECKS)

        ask()
    assert {200, 422} <= seen
    assert server.process.poll() is None
