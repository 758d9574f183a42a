"""One admin, alone, with every page and every command: no coins, no rupees, no new operator.

Every form of the panel and every command is in a table; a missing one fails a test. Mallory is an admin with a
second factor of her own. No one else acts. She tries everything, then everything again with the results.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import pyotp
import pytest

from api.admin.actions import ACTIONS
from api.admin.app import create_panel
from api.admin.app_keys import PROPOSES as APP_PROPOSALS
from api.admin.bulk import BULK_ACTIONS
from api.admin.operators import ACTIONS as OPERATOR_ACTIONS
from cli import main
from shared import proposals
from shared.access import app_keys
from shared.db.transactions import transaction
from shared.people.exception_records import open_record
from shared.roles import Role
from shared.settings import settings
from tests.api.admin.person import Person, add_operator
from tests.api.admin.test_app_access import token_of
from tests.support.shell import invoke
from tests.support.world import World, forget_settings

MALLORYS = "mallory@okaxis"
NOTHING = "00000000-0000-7000-8000-000000000000"
DO = {"step": "do", "reason": "for me", "resolution": "for me"}
EVERY_SCOPE = {f"scope_{scope}": "on" for scope in app_keys.SCOPES}


class Mallory(Person):
    """Signed in with password and code. She knows every row of the database, and sends every form."""

    def __init__(self, world: World) -> None:
        add_operator(world, "mallory", Role.ADMIN)
        secret = pyotp.random_base32()
        world.sql(
            "UPDATE operators SET totp_secret = :s, user_id = 'mallory' WHERE name = 'mallory'", s=secret
        )
        super().__init__("mallory", create_panel(settings()))
        self.world = world
        self.sign_in(code=pyotp.TOTP(secret).now())
        assert self.page.status_code == 303
        self.token = token_of(self)

    def post(self, address: str, **form: Any) -> None:
        answer = self.client.post(address, data={"csrf_token": self.token, **DO, **form})
        assert answer.status_code < 500, (address, form)
        assert "second_factor" not in answer.text, "her code is fresh, so the panel does not ask for one"

    def ids(self, table: str, where: str = "true") -> list[Any]:
        return [row.id for row in self.world.sql(f"SELECT id FROM {table} WHERE {where}")]

    def fill_in_everything(self) -> None:
        for rule, form in FORMS.items():
            form(self, rule)

    # --- one method for each form of the panel

    def withdrawals(self, rule: str) -> None:
        resolutions = self.ids("resolutions") or [NOTHING]
        for withdrawal_id in self.ids("withdrawals"):
            for word in ACTIONS:
                version = self.world.read(withdrawal_id).version
                address = f"/admin/withdrawal/{withdrawal_id}/{word}/"
                for proposal in resolutions:
                    self.post(address, version=version, proposal=proposal, utr="412345678901")

    def unmask(self, rule: str) -> None:
        for withdrawal_id in self.ids("withdrawals"):
            self.post(f"/admin/withdrawal/{withdrawal_id}/upi-id/")

    def bulk(self, rule: str) -> None:
        for action in BULK_ACTIONS:
            picks = [f"{one}:{self.world.read(one).version}" for one in self.ids("withdrawals")]
            self.post(rule, word=action.code, pick=picks)

    def turn(self, rule: str) -> None:
        for word, subject in (
            ("freeze", "rich"),
            ("unfreeze", "rich"),
            ("block", "a@okaxis"),
            ("unblock", "a@okaxis"),
            ("unfreeze", "mallory"),
        ):
            self.post(rule, word=word, subject=subject)

    def lifts(self, rule: str) -> None:
        for removal in self.ids("block_removals"):
            self.post(f"/admin/ruling/lift/{removal}/", word="approve")

    def coins(self, rule: str) -> None:
        for number, user_id in enumerate(("rich", "puppet", "mallory")):
            key = f"00000000-0000-7000-8000-{number:012}"
            self.post(rule, subject=user_id, coins="5", reference=f"gift-{number}", key=key)
            self.post(rule, subject=user_id, coins="-1", key=key.replace("8000", "9000"))

    def coins_decided(self, rule: str) -> None:
        for adjustment in self.ids("adjustments"):
            self.post(f"/admin/ruling/coins/{adjustment}/", word="approve")

    def switches(self, rule: str) -> None:
        for word in ("pause", "resume"):
            self.post(rule, word=word, name="payouts", seen="")

    def records(self, rule: str) -> None:
        for record in self.ids("exception_records"):
            self.post(rule.replace("<int:record_id>", str(record)), seen="")

    def proposals(self, rule: str) -> None:
        with transaction() as session:
            mine = [(one.id, one.fingerprint) for one in proposals.open_proposals(session)]
            mine += [(one.id, one.fingerprint) for one in proposals.recently_decided(session, limit=1000)]
        for word in ("confirm", "claim"):
            for proposal_id, shown in mine:
                self.post(f"/admin/proposals/{proposal_id}/", word=word, shown=shown)

    def operators(self, rule: str) -> None:
        for name in ("good", "vera", "fay", "mallory", "puppet"):
            for word in OPERATOR_ACTIONS:
                about = {"role": "admin", "email": f"{name}+mallory@example.com"}
                if word != "disable" or name != "vera":  # so that she can try to promote someone
                    self.post(rule, word=word, name=name, **about)

    def apps(self, rule: str) -> None:
        [key] = self.world.sql("SELECT prefix FROM app_keys WHERE app = 'quiz'")
        for word in (*APP_PROPOSALS, "remove"):
            for subject in ("puppet", key.prefix, "https://example.com/hook"):
                self.post(rule, word=word, subject=subject, **EVERY_SCOPE)
        self.post(rule, word="create", subject="reader", scope_read="on")

    def invitation(self, rule: str) -> None:
        for token in ("", NOTHING + "0" * 64):
            self.post(rule, token=token, new="a password of hers", again="a password of hers")

    def account(self, rule: str) -> None:
        self.post(
            rule, old="wrong", new="a password of hers", again="a password of hers", first_code="000000"
        )

    def nothing(self, rule: str) -> None:
        """Signing in and out as herself gains nothing."""


FORMS = {
    "/admin/sign-in/": Mallory.nothing,
    "/admin/account/sign-out/": Mallory.nothing,
    "/admin/withdrawal/<uuid:withdrawal_id>/upi-id/": Mallory.unmask,
    "/admin/withdrawal/<uuid:withdrawal_id>/<word>/": Mallory.withdrawals,
    "/admin/bulk/": Mallory.bulk,
    "/admin/ruling/turn/": Mallory.turn,
    "/admin/ruling/lift/<uuid:removal_id>/": Mallory.lifts,
    "/admin/ruling/coins/": Mallory.coins,
    "/admin/ruling/coins/<uuid:adjustment_id>/": Mallory.coins_decided,
    "/admin/switches/turn/": Mallory.switches,
    "/admin/exceptions/<int:record_id>/take/": Mallory.records,
    "/admin/exceptions/<int:record_id>/close/": Mallory.records,
    "/admin/proposals/<uuid:proposal_id>/": Mallory.proposals,
    "/admin/operators/change/": Mallory.operators,
    "/admin/apps/change/": Mallory.apps,
    "/admin/invitation/": Mallory.invitation,
    "/admin/account/password/": Mallory.account,
    "/admin/account/second-factor/offer/": Mallory.account,
    "/admin/account/second-factor/enrol/": Mallory.account,
    "/admin/account/recovery-codes/": Mallory.account,
}
# The arguments of each command; `{…}` stands for each existing row. None: it starts processes.
COMMANDS: dict[str, list[str] | None] = {
    **dict.fromkeys(("api", "worker", "beat", "flower", "sandbox", "demo"), None),
    "migrate": [""],
    "explain": ["{withdrawal}"],
    "status": [""],
    "check": [""],
    "delete-old-webhooks": [""],
    "pause": ["--reason x"],
    "resume": ["--reason x"],
    "exceptions list": [""],
    "exceptions take": ["{record}"],
    "exceptions close": ["{record} --resolution x"],
    "resolve propose": [
        "{withdrawal} refund --evidence x",
        "{withdrawal} paid --evidence x --utr 412345678901",
    ],
    "resolve approve": ["{resolution}"],
    "resolve reject": [NOTHING],
    "review list": [""],
    "review approve": ["{withdrawal} --facts x --reason x"],
    "review reject": [f"{NOTHING} --facts x --reason x"],
    "block add": ["b@okaxis --reason x"],
    "block remove": ["b@okaxis --reason x"],
    "block list": [""],
    "block proposals": [""],
    "block approve": ["{removal}"],
    "block reject": [NOTHING],
    "wallet freeze": ["rich --reason x"],
    "wallet unfreeze": ["rich --reason x"],
    "wallet credit": ["puppet 5 --reference shell --reason x", "mallory 5 --reference shell --reason x"],
    "wallet adjust": ["rich 5 --reason x"],
    "wallet proposals": [""],
    "wallet approve": ["{adjustment}"],
    "wallet reject": [NOTHING],
    "keys create": ["puppet", "puppet2 --scope credit", "reader2 --scope read"],
    "keys list": [""],
    "keys rotate": ["{key} --grace-hours 0"],
    "keys revoke": ["cpk_0000000000"],
    "operator add": ["puppet --role admin", "puppet2 --role finance --email mallory@example.com"],
    "operator disable": ["good"],
    "operator enable": ["fay"],
    "operator password": ["good", "vera", "fay"],
    "operator role": ["vera admin", "vera finance"],
    "operator totp": ["good --off"],
    "operator link": ["vera --email mallory@example.com", "mallory --user-id nobody"],
    "operator sign-in": None,  # she is signed in
    "operator sign-out": None,
    "operator list": [""],
    "proposals list": [""],
    "proposals confirm": ["{proposal} --facts {facts}"],
    "proposals reject": [NOTHING],
    "proposals claim": ["{proposal}"],
    "endpoints add": ["https://example.com/shell"],
    "endpoints list": [""],
    "endpoints rotate": ["https://example.com/shell"],
    "endpoints remove": ["https://example.com/shell"],
    "webhooks list": [""],
    "webhooks replay": [NOTHING],
    "mail list": [""],
    "mail retry": ["--failed"],
    "mail test": ["mallory@example.com"],
    "import": ["{file}", "{file} --dry-run", "{file} --propose", "{file} --confirm", "{file}"],
    "reconcile": None,  # it only reads
    "close-day": None,
    "certificate-key": None,
    "prove": None,
    "verify": None,
}


def commands(group: click.Group = main, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def test_every_form_and_every_command_is_in_the_table(panel: World) -> None:
    routes = {
        rule.rule for rule in create_panel(settings()).url_map.iter_rules() if "POST" in (rule.methods or ())
    }
    assert routes == set(FORMS)
    assert {name for name, _ in commands()} == set(COMMANDS), {name for name, _ in commands()} ^ set(COMMANDS)


def run(world: World, file: Path) -> None:
    """Run every command with every existing row."""
    for name, lines in COMMANDS.items():
        for line in lines or ():
            for arguments in filled(world, line, file):
                result = invoke(*name.split(), *arguments, by="mallory")
                assert result.exception is None or isinstance(result.exception, SystemExit), (
                    name,
                    result.exception,
                )


def filled(world: World, line: str, file: Path) -> Iterator[list[str]]:
    rows: dict[str, str] = {
        "{withdrawal}": "SELECT id::text FROM withdrawals",
        "{record}": "SELECT id::text FROM exception_records",
        "{resolution}": "SELECT id::text FROM resolutions",
        "{removal}": "SELECT id::text FROM block_removals",
        "{adjustment}": "SELECT id::text FROM adjustments",
        "{proposal}": "SELECT id::text FROM admin_proposals",
        "{key}": "SELECT prefix FROM app_keys WHERE app = 'quiz'",
    }
    line = line.replace("{file}", str(file))
    for sign, query in rows.items():
        if sign in line:
            for (row_id,) in world.sql(f"{query} ORDER BY 1 DESC LIMIT 6"):  # the newest ids
                facts = world.sql("SELECT fingerprint FROM admin_proposals WHERE id::text = :id", id=row_id)
                yield line.replace(sign, row_id).replace("{facts}", facts[0][0] if facts else "x").split()
            return
    yield line.split()


def test_one_bad_admin_alone_gains_no_coins_rupees_or_operators(
    panel: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = panel
    for name, value in (
        ("SECOND_ADMIN_REQUIRED", "on"),
        ("ADMIN_TOTP_REQUIRED_ROLES", "finance,admin"),
        ("ADJUST_ALONE_MAX_COINS", "0"),
        ("REVIEW_ALL", "on"),
    ):
        monkeypatch.setenv(name, value)
    forget_settings()
    file = tmp_path / "prizes.csv"
    file.write_text(f"user_id,amount,upi_id,reference\nrich,500,{MALLORYS},mine\n")
    for name, role in (("good", Role.ADMIN), ("vera", Role.VIEWER), ("fay", Role.FINANCE)):
        add_operator(world, name, role)
    world.sql("UPDATE operators SET totp_secret = 'JBSWY3DPEHPK3PXP' WHERE name = 'good'")
    world.sql("UPDATE operators SET disabled_at = now(), disabled_by = 'operator:good' WHERE name = 'fay'")
    with transaction() as session:
        app_keys.create(session, app="quiz", scopes=app_keys.SCOPES, actor="operator:good")
        open_record(session, kind="test", subject="s", source="watch", ours={}, theirs={})
    world.credit("rich", 2000, "earned")
    world.credit("mallory", 500, "earned")
    hers = world.request("mallory", 500, MALLORYS)
    before = standing(world)
    mallory = Mallory(world)
    mallory.fill_in_everything()
    run(world, file)
    mallory.fill_in_everything()  # with the results of the first round
    assert_nothing_gained(world, before, hers)


def standing(world: World) -> dict[str, Any]:
    return {
        "journal": world.sql(
            "SELECT * FROM coin_transactions WHERE kind IN ('credit', 'adjustment') ORDER BY id"
        ),
        "rich": world.balance("rich"),
        "keys": world.sql("SELECT * FROM app_keys WHERE app = 'quiz'"),
        "operators": credentials(world),
    }


def credentials(world: World) -> dict[str, Any]:
    rows = world.sql(
        "SELECT name, role, password_hash, totp_secret, email FROM operators WHERE name <> 'mallory'"
    )
    return {row.name: tuple(row) for row in rows}


def assert_nothing_gained(world: World, before: dict[str, Any], hers: UUID) -> None:
    after = standing(world)
    assert after["journal"] == before["journal"], "no one received coins"
    assert after["rich"] == before["rich"] == 2000, "no coins were taken"
    assert after["keys"][0].prefix == before["keys"][0].prefix and len(after["keys"]) == 1
    others = world.sql("SELECT scopes FROM app_keys WHERE app <> 'quiz'")
    assert all(list(key.scopes) == ["read"] for key in others), "a key of hers can only read"
    assert world.sql("SELECT FROM payout_attempts") == [] == world.sql("SELECT FROM endpoints")
    assert world.sql("SELECT FROM reviews WHERE outcome = 'approved'") == []
    assert world.read(hers).status in ("pending", "cancelled", "failed")
    assert world.sql("SELECT FROM operator_invitations") == [], "no one can choose a password"
    assert after["operators"] == before["operators"], "no new operator, no new permissions, no stolen account"
    assert world.sql("SELECT FROM operators WHERE name = 'fay' AND disabled_at IS NULL") == []
    confirmed = world.sql("SELECT kind, wanted FROM admin_proposals WHERE outcome = 'confirmed'")
    assert {proposal.kind for proposal in confirmed} <= {"key_create"}
    assert all(proposal.wanted["scopes"] == ["read"] for proposal in confirmed), json.dumps(
        [*map(str, confirmed)]
    )
