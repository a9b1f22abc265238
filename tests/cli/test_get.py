"""The paying commands, as real processes against a real chain, facilitator and seller."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from marketplace import BIG_SIZE_BYTES, interrupt

from farthing.cli.paying import may_follow
from farthing.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from tests.cli.marketplace import Market, User

ASKED = "Pay 0.01 USDC? [y/N]"
FREE = b"the goods\n"


# What is paid, and what is asked.


def test_a_purchase_within_the_limit(user: User) -> None:
    done = user.run("get", user.url("/report"), "--max", "0.05", "--yes")
    assert (done.code, done.stdout) == (0, FREE)
    assert "Paid 0.01 USDC: transaction 0x" in done.stderr
    assert user.spent == 10_000
    (entry,) = user.journal()
    assert (entry.state, entry.delivered) == ("settled", True)


def test_what_is_free_needs_no_key_and_no_home(user: User) -> None:
    done = user.with_env(FARTHING_KEY=None).run("get", user.url("/free"))
    assert (done.code, done.stdout, done.stderr) == (0, FREE, "")
    assert not user.home.exists()


def test_a_person_at_a_terminal_is_asked_about_the_very_price(user: User) -> None:
    done = user.on_terminal("get", user.url("/report"), keys={ASKED: "y\n"})
    assert (done.code, done.stdout) == (0, FREE)
    for told in ("0.01 USDC on Farthing devnet", user.market.payee, user.wallet.address):
        assert told in done.screen
    assert user.spent == 10_000


@pytest.mark.parametrize("typed", ["n\n", "\n", "maybe\n", "\x04"], ids=["no", "enter", "maybe", "end of file"])
def test_a_person_who_does_not_say_yes_pays_nothing(user: User, typed: str) -> None:
    done = user.on_terminal("get", user.url("/report"), keys={ASKED: typed})
    assert (done.code, done.stdout) == (3, b"")
    assert "You said no" in done.screen
    assert user.spent == 0
    assert [each.state for each in user.journal()] == ["released"]


def test_Ctrl_C_at_the_question_gives_the_place_in_the_budget_back(user: User) -> None:
    done = user.on_terminal("get", user.url("/report"), keys={ASKED: "\x03"})
    assert done.code == 130
    assert [each.state for each in user.journal()] == ["released"]
    assert user.spent == 0


def test_without_a_terminal_nothing_is_paid_unless_yes_says_so(user: User, market: Market) -> None:
    before = len(market.served)
    done = user.run("get", user.url("/report"), "--max", "0.05")
    assert (done.code, done.stdout) == (3, b"")
    assert "--yes" in done.stderr
    assert (user.spent, len(market.served)) == (0, before)


def test_the_body_may_come_from_standard_input_while_the_terminal_is_asked(user: User) -> None:
    # A shell's pipe on a terminal: standard input is the body, the keyboard answers.
    script = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-m', 'farthing', 'post', \
'{user.url('/echo')}', '-d', '@-'], stdin=subprocess.Popen(['printf', 'piped'], stdout=subprocess.PIPE).stdout)\
.returncode)"
    done = user.on_terminal("-c", script, keys={"Pay 0.02 USDC? [y/N]": "y\n"}, program=())
    assert done.code == 0, done.screen
    assert json.loads(done.stdout)["body"] == "piped"


def test_a_call_in_this_process_does_as_a_process_does(user: User) -> None:
    ran, called = (run("get", user.url("/report"), "--max", "0.05", "--yes") for run in (user.run, user.call))
    assert (ran.code, ran.stdout) == (called.code, called.stdout) == (0, FREE)
    ran, called = (run("get", user.url("/report"), "--max", "-1", "--yes") for run in (user.run, user.call))
    assert (ran.code, ran.stdout, ran.stderr) == (called.code, called.stdout, called.stderr)


# Exit codes.


def test_2_is_usage(user: User, market: Market) -> None:
    before = len(market.served)
    for arguments in (
        ("get",),
        ("get", "shop.example/report"),
        ("get", user.url("/report"), "--max", "a lot"),
        ("get", user.url("/report"), "-H", "no header"),
        ("get", user.url("/report"), "--token", "USDC"),
        ("get", user.url("/report"), "--network", "eip155:424242"),
        ("post", user.url("/echo"), "-d", "@nowhere"),
        ("get", user.url("/report"), "--yes", "-o", "nowhere/file"),
    ):
        done = user.call(*arguments)
        assert done.code == 2, (arguments, done)
        assert "Traceback" not in done.stderr
    done = user.call("get", user.url("/report"), "--max", "a lot", "--json")
    assert (done.code, done.json["exit_code"], done.json["error"]["code"]) == (2, 2, "PriceError")
    assert len(market.served) == before


def test_3_is_our_own_no(user: User) -> None:
    over = user.run("get", user.url("/dear"), "--max", "0.05", "--yes", "--json")
    assert over.code == 3
    assert over.json["error"]["code"] == "price_over_limit"
    assert "--max" in over.json["error"]["advice"]
    elsewhere = user.call("get", user.url("/report"), "--yes", "--network", "eip155:8453", "--json")
    assert (elsewhere.code, elsewhere.json["error"]["code"]) == (3, "no_acceptable_offer")
    today = user.call("get", user.url("/report"), "--yes", "--max-per-day", "0.005", "--json")
    assert (today.code, today.json["error"]["code"]) == (3, "over_per_day")
    assert user.spent == 0


def test_4_is_the_sellers_no(market: Market, tmp_path: Path) -> None:
    poor = market.user(tmp_path, usdc="0")
    done = poor.call("get", poor.url("/report"), "--yes", "--json")
    assert done.code == 4
    assert done.json["state"] == "refused"
    assert done.json["payment_id"].startswith("pay_")
    assert poor.run("get", poor.url("/report"), "--yes").code == 4
    gone = poor.call("get", poor.url("/gone-for-free"), "--json")
    assert (gone.code, gone.json["status"], gone.json["paid"]) == (4, 410, False)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "not_x402"),
        ("?body=pay+me", "not_x402"),
        ("?header=", "malformed_offer"),
        ("?header=no+base64", "malformed_offer"),
        ("?header=e30=", "malformed_offer"),
        ("?header=eyJ4NDAyVmVyc2lvbiI6MiwiYWNjZXB0cyI6W119", "no_offers"),
        ('?body={"x402Version":1,"accepts":"none"}', "malformed_offer"),
        ('?body={"x402Version":1,"accepts":[]}', "no_offers"),
    ],
)
def test_4_is_a_402_that_nobody_could_pay(user: User, query: str, code: str) -> None:
    done = user.call("get", user.url("/odd") + query, "--yes", "--json")
    assert (done.code, done.json["error"]["code"]) == (4, code)
    seen = user.call("get", user.url("/odd") + query, "--dry-run", "--json")
    assert seen.code in {3, 4}
    assert user.journal() == []


def test_6_is_the_network(user: User) -> None:
    done = user.run("get", "http://127.0.0.1:1/", "--json")
    assert (done.code, done.json["error"]["code"]) == (6, "network")


@pytest.mark.parametrize(
    "url",
    ["http://..", "http://" + "a" * 300 + ".com/", "http://[::1", "http://127.0.0.1:99999", "http://x\x00y/", "http:"],
)
def test_a_url_that_leads_nowhere_is_no_crash(user: User, url: str) -> None:
    for command in ("get", "head", "inspect"):
        done = user.call(command, url)
        assert done.code in {2, 6}
        assert done.stderr.startswith("farthing: ")


# Ctrl-C in the middle of a purchase, B1.


def test_5_B1_Ctrl_C_while_the_seller_works_is_unknown_and_the_same_again_pays_once(user: User, market: Market) -> None:
    market.go_on.clear()
    market.hanging.clear()
    process = user.start("get", user.url("/hangs"), "--yes", "--json")
    assert market.hanging.wait(60)
    done = interrupt(process)
    assert done.code == 5
    assert done.json["state"] == "unknown"
    assert "Run the same command again" in done.stderr
    (entry,) = user.journal()
    assert entry.state == "unknown"
    listed = user.call("payments", "show", done.json["payment_id"])
    assert "farthing payments mark" in listed.stdout.decode()
    market.go_on.set()
    again = user.call("get", user.url("/hangs"), "--yes", "--json")
    while again.code == 5:  # the seller still serves the first copy
        again = user.call("get", user.url("/hangs"), "--yes", "--json")
    assert again.json["again"]
    assert again.json["payment_id"] == done.json["payment_id"]
    assert user.spent <= 10_000
    assert len(user.journal()) == 1


def test_B1_Ctrl_C_while_a_settled_payments_answer_comes_leaves_the_purchase_open(user: User, market: Market) -> None:
    market.go_on.clear()
    process = user.start("get", user.url("/stalls"), "--yes")
    assert process.stdout is not None
    assert process.stdout.read(len(b"the beginning")) == b"the beginning"
    done = interrupt(process)
    market.go_on.set()
    (entry,) = user.journal()
    assert (done.code, entry.state, entry.delivered) == (130, "settled", False)
    assert "is settled" in done.stderr
    assert "Run the same command again" in done.stderr
    assert user.spent == 10_000


def test_a_journal_that_fails_after_the_payment_left_is_unknown(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreError("The disk is full.")

    monkeypatch.setattr("farthing.world.journal.record_outcome", full)
    done = user.call("get", user.url("/report"), "--yes", "--json")
    assert (done.code, done.json["state"]) == (5, "unknown")
    assert "Run the same command again" in done.json["error"]["advice"]


# HEAD and --dry-run.


def test_B1_head_never_pays_and_shows_the_offer(user: User, market: Market) -> None:
    before = len(market.served)
    done = user.call("head", user.url("/report"))
    assert done.code == 0
    assert "0.01 USDC on Farthing devnet" in done.stdout.decode()
    offers = user.call("head", user.url("/report"), "--json").json["offers"]
    assert [(each["price"], each["pay_to"], each["payable"]) for each in offers] == [("0.01", market.payee, True)]
    refused = user.call("head", user.url("/report"), "--yes")
    assert refused.code == 2
    assert (user.spent, len(market.served), user.home.exists()) == (0, before, False)


def test_head_of_what_is_free_shows_its_headers(user: User) -> None:
    done = user.call("head", user.url("/free"))
    assert done.code == 0
    assert done.stdout.startswith(b"HTTP/1.1 200 OK")
    assert b"content-length:" in done.stdout.lower()


def test_dry_run_shows_the_price_and_pays_nothing(user: User, market: Market) -> None:
    before = len(market.served)
    done = user.with_env(FARTHING_KEY=None).call("get", user.url("/report"), "--dry-run", "--yes", "--json")
    assert (done.code, done.json["price"], done.json["paid"]) == (0, "0.01", False)
    dear = user.call("get", user.url("/dear"), "--dry-run")
    assert dear.code == 3
    assert b"per_request allows 0.1 USD" in dear.stdout
    assert (user.spent, len(market.served), user.home.exists()) == (0, before, False)


# What is sent.


def test_a_body_is_sent_and_its_type_is_told(user: User) -> None:
    (user.folder / "question.txt").write_text("why?")
    for method, data, headers, expected in (
        ("post", ['{"a": 1}'], [], ("application/json", '{"a": 1}')),
        ("put", ["a=1", "b=2"], [], ("application/x-www-form-urlencoded", "a=1&b=2")),
        ("post", ["@question.txt"], ["-H", "Content-Type: text/plain"], ("text/plain", "why?")),
        ("delete", [], ["-H", "X-Name: ü"], (None, "")),
    ):
        options = [part for each in data for part in ("-d", each)]
        done = user.call(method, user.url("/echo"), "--yes", *options, *headers)
        assert done.code == 0, done.stderr
        said = json.loads(done.stdout)
        assert (said["type"], said["body"]) == expected
    assert user.spent == 80_000


def test_redirects_are_followed_only_when_asked_and_never_after_a_payment(user: User) -> None:
    assert user.call("get", user.url("/free-moved")).stdout == b""
    assert user.call("get", user.url("/free-moved"), "-L").stdout == FREE
    paid = user.call("get", user.url("/moved"), "-L", "--yes")
    assert "not followed" in paid.stderr
    assert paid.stdout == b""


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("https://shop.example/b", True),
        ("https://shop.example:8443/b", False),
        ("https://other.example/b", False),
        ("https://shop.example.other.example/", False),
    ],
)
def test_B5_credentials_never_go_to_another_origin(target: str, *, kept: bool) -> None:
    headers = {"Authorization": "Bearer s3cret", "X-Api-Key": "s3cret", "Cookie": "a=b", "Accept": "text/html"}
    request = httpx2.Request("GET", "https://shop.example/a", headers=headers)
    followed = may_follow(httpx2.Request("GET", target, headers=headers), request)
    for name in ("Authorization", "X-Api-Key", "Cookie"):
        assert (name in followed.headers) is kept
    assert followed.headers["Accept"] == "text/html"
    with pytest.raises(ConfigError):
        may_follow(httpx2.Request("GET", "http://shop.example/b"), request)


def test_verbose_tells_the_steps_and_shows_no_secret(user: User) -> None:
    done = user.call("get", user.url("/report"), "--yes", "-v", "-H", "Authorization: Bearer s3cret")
    for told in ("> GET ", "< 402", "* offer", "* signing: TransferWithAuthorization", "* payment: pay_", "* receipt"):
        assert told in done.stderr
    assert "s3cret" not in done.stderr
    assert "\x1b" not in done.stderr
    assert user.wallet.key[2:] not in done.stderr


# What comes back.


def test_a_file_is_written_whole_and_nothing_else_is_left(user: User) -> None:
    target = user.folder / "report.txt"
    target.write_text("the old one")
    done = user.call("get", user.url("/big"), "--yes", "-o", "report.txt", "--json")
    assert done.code == 0
    assert target.stat().st_size == BIG_SIZE_BYTES
    assert (done.json["file"], done.json["size_bytes"]) == (str(target), BIG_SIZE_BYTES)
    assert done.json["body"] is None
    assert sorted(path.name for path in user.folder.iterdir()) == ["home", "report.txt"]


def test_a_no_of_the_server_does_not_take_the_files_place(user: User) -> None:
    target = user.folder / "report.txt"
    target.write_text("the old one")
    done = user.call("get", user.url("/gone-for-free"), "-o", "report.txt")
    assert done.code == 4
    assert "it was here yesterday" in done.stderr
    assert target.read_text() == "the old one"


def test_a_body_that_breaks_off_is_never_under_the_files_name(user: User) -> None:
    done = user.call("get", user.url("/paid-cut"), "--yes", "-o", "report.txt", "--json")
    (entry,) = user.journal()
    assert (done.code, entry.delivered) == (6, False)
    assert "Run the same command again" in done.json["error"]["advice"]
    assert not (user.folder / "report.txt").exists()
    assert (user.folder / "report.txt.part").read_bytes() == b"the beginning"
    free = user.call("get", user.url("/cut"), "-o", "free.txt", "--json")
    assert (free.code, free.json["error"]["code"]) == (6, "cut")
    assert not (user.folder / "free.txt").exists()
    assert (user.folder / "free.txt.part").read_bytes() == b"the beginning"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is full")  # noqa: PTH110 - a device
def test_a_disk_that_is_full_leaves_the_purchase_open(user: User) -> None:
    done = user.call("get", user.url("/big"), "--yes", "-o", "/dev/full", "--json")
    assert (done.code, done.json["state"], done.json["error"]["code"]) == (1, "settled", "output")
    (entry,) = user.journal()
    assert (entry.state, entry.delivered) == ("settled", False)


def test_json_holds_the_body_or_its_base64(user: User) -> None:
    done = user.call("get", user.url("/report"), "--yes", "--json").json
    assert (done["body"], done["price"], done["symbol"], done["state"]) == ("the goods\n", "0.01", "USDC", "settled")
    assert (done["payer"], done["pay_to"]) == (user.wallet.address, user.market.payee)
    binary = user.call("get", user.url("/binary"), "--yes", "--json").json
    assert binary["body"] is None
    assert len(binary["body_base64"]) > 256


def test_bytes_that_are_no_text_do_not_go_to_a_terminal(user: User) -> None:
    done = user.on_terminal("get", user.url("/binary"), "--yes", keys={}, apart=False)
    assert done.code == 0
    (saved,) = user.folder.glob("farthing-answer-*")
    assert saved.read_bytes() == bytes(range(256))
    assert saved.name in done.screen


def test_a_reader_that_has_enough_is_no_error(user: User) -> None:
    process = user.start("get", user.url("/big"), "--yes")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"Traceback" not in err
    assert b"Paid 0.01 USDC" in err


def test_a_device_is_written_to_and_not_replaced(user: User) -> None:
    read, write = os.pipe()
    done = user.run("get", user.url("/free"), "-o", f"/dev/fd/{write}", fds=(write,))
    os.close(write)
    assert done.code == 0
    assert os.read(read, 100) == FREE
    os.close(read)


def test_SIGTERM_ends_as_Ctrl_C_does(user: User, market: Market) -> None:
    market.go_on.clear()
    market.hanging.clear()
    process = user.start("get", user.url("/hangs") + "?term", "--yes")
    assert market.hanging.wait(60)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    market.go_on.set()
    assert process.returncode == 5
    assert [each.state for each in user.journal()] == ["unknown"]
