"""What a stranger, or an operator who plays, sends past the forms: nothing of it counts."""

from shared.roles import Role
from tests.integration.panel.conftest import Signed
from tests.integration.panel.person import PASSWORD, Person, add_operator
from tests.world import World


def test_a_form_that_comes_with_head_is_none(panel: World, signed_in: Signed) -> None:
    panel.credit()
    withdrawal_id = panel.request()
    asha = signed_in("asha")
    filled = {"step": "do", "reason": "by a trick", "version": str(panel.read(withdrawal_id).version)}
    answer = asha.client.head(f"/admin/withdrawal/{withdrawal_id}/cancel/", data=filled)
    assert (answer.status_code, panel.read(withdrawal_id).status) == (200, "pending")


def test_nobody_signs_in_with_head(panel: World) -> None:
    add_operator(panel, "asha", Role.ADMIN)
    client = Person("asha").client
    for password in (PASSWORD, "wrong"):
        assert (
            client.head("/admin/sign-in/", data={"username": "asha", "password": password}).status_code == 200
        )
    assert client.get("/admin/").status_code == 302
    assert panel.sql("SELECT * FROM audit_log") == []
