"""B7: keys on the command line, encrypted on disk, and shown nowhere; and where a paying command takes its key from."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from eth_account import Account
from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.errors import ConfigError, SignerError
from farthing.evm.typed_data import Domain, TransferWithAuthorization
from farthing.world.keys import LocalSigner
from farthing.world.keystore import KEYSTORE_MAX_BYTES, Keystore
from farthing.world.remote_signer import RemoteSigner

if TYPE_CHECKING:
    from tests.cli.marketplace import User

SECRET = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ADDRESS = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"  # of the web3.js documentation's example key
PASSPHRASE = "correct horse"

# The definition's own test vectors: passphrase testpassword.
VECTOR_KEY = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"
VECTOR_PBKDF2 = {
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2",
        "kdfparams": {
            "c": 262144,
            "dklen": 32,
            "prf": "hmac-sha256",
            "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
        },
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3,
}


@pytest.fixture(autouse=True)
def _cheap_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farthing.world.keystore.SCRYPT_N", 1024)


@pytest.fixture
def store(tmp_path: Path) -> Keystore:
    return Keystore(tmp_path / "private" / "keys")


def message() -> Any:
    domain = Domain("USDC", "2", 402402, b"\x11" * 20)
    return TransferWithAuthorization(b"\x22" * 20, b"\x33" * 20, 1, 0, 2, b"\x44" * 32).bind(domain)


# The keystore.


def test_what_is_stored_is_read_by_others_and_what_others_stored_is_read_here(store: Keystore) -> None:
    made = store.create("mine", PASSPHRASE)
    document = json.loads(store.document("mine"))
    opened = decode_keyfile_json(document, PASSPHRASE.encode())
    assert Account.from_key(opened).address == made.address == store.signer("mine", PASSPHRASE).address
    theirs = create_keyfile_json(bytes.fromhex(SECRET), b"pw", kdf="scrypt", iterations=2)
    assert store.add_document("theirs", json.dumps(theirs).encode(), "pw").address == ADDRESS
    assert store.reveal("theirs", "pw") == "0x" + SECRET
    vector = json.dumps(VECTOR_PBKDF2).replace('"crypto"', '"Crypto"').encode()
    store.add_document("vector", vector, "testpassword")
    assert store.reveal("vector", "testpassword") == "0x" + VECTOR_KEY
    assert [each.name for each in store.entries()] == ["mine", "theirs", "vector"]


@settings(max_examples=10)
@given(secret=st.integers(1, 2**255), passphrase=st.text(st.characters(codec="utf-8"), min_size=1))
def test_opened_is_what_was_stored(tmp_path_factory: pytest.TempPathFactory, secret: int, passphrase: str) -> None:
    keystore = Keystore(tmp_path_factory.mktemp("store"))
    text = f"{secret:064x}"
    keystore.add_hex("a", text, passphrase)
    assert keystore.reveal("a", passphrase) == "0x" + text


def test_B7_the_folder_and_the_files_are_their_owners_alone(store: Keystore) -> None:
    store.create("mine", PASSPHRASE)
    for path, mode in ((store.folder, 0o700), (store.folder.parent, 0o700), (store.folder / "mine.json", 0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert [path.name for path in store.folder.iterdir()] == ["mine.json"]
    (store.folder / "mine.json").chmod(0o640)
    with pytest.raises(SignerError, match="chmod 600"):
        store.signer("mine", PASSPHRASE)


def test_no_key_takes_the_place_of_another(store: Keystore) -> None:
    before = store.create("mine", PASSPHRASE)
    with pytest.raises(SignerError, match="already"):
        store.add_hex("mine", SECRET, PASSPHRASE)
    assert store.find("mine") == before


def broken(**changes: Any) -> bytes:
    """The vector with members of its `crypto` changed."""
    return json.dumps(VECTOR_PBKDF2 | {"crypto": VECTOR_PBKDF2["crypto"] | changes}).encode()  # type: ignore[operator]


SCRYPT = {"dklen": 32, "n": 2, "r": 8, "p": 1, "salt": "00"}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b"[1]",
        b"{" * 5000,
        b"x" * (KEYSTORE_MAX_BYTES + 1),
        json.dumps(VECTOR_PBKDF2 | {"version": 4}).encode(),
        json.dumps(VECTOR_PBKDF2 | {"address": "00" * 20}).encode(),
        broken(mac="00" * 32),
        broken(cipher="aes-256-ctr"),
        broken(kdf="argon2"),
        broken(kdfparams={}),
        broken(kdf="scrypt", kdfparams=SCRYPT | {"n": 3}),
        broken(kdf="scrypt", kdfparams=SCRYPT | {"n": 1 << 24}),
        broken(kdf="scrypt", kdfparams=SCRYPT | {"r": 1 << 15, "n": 1 << 20}),
        broken(ciphertext="zz"),
    ],
)
def test_a_file_that_can_not_be_meant_is_refused_quickly(store: Keystore, document: bytes) -> None:
    with pytest.raises(SignerError):
        store.add_document("a", document, "testpassword")
    assert store.entries() == []


@pytest.mark.parametrize("name", ["", ".hidden", "../a", "a/b", "a" * 65, SECRET, "0x" + SECRET])
def test_a_name_is_a_name(store: Keystore, name: str) -> None:
    with pytest.raises(SignerError) as caught:
        store.create(name, PASSPHRASE)
    assert SECRET not in str(caught.value)


def frames_of(error: BaseException) -> str:
    """All that a traceback with local variables would show of our own frames."""
    shown = []
    seen: BaseException | None = error
    while seen is not None:
        told = traceback.TracebackException.from_exception(seen, capture_locals=True)
        shown += [repr(each.locals) for each in told.stack if "farthing" in Path(each.filename).parts]
        shown.append(repr(seen))
        seen = seen.__cause__ or seen.__context__
    return "".join(shown)


def test_B7_no_error_and_no_repr_holds_a_key_or_a_passphrase(store: Keystore) -> None:
    store.add_hex("mine", SECRET, PASSPHRASE)
    wrong = "not the pass" + "phrase"
    for attempt in (
        lambda: store.signer("mine", wrong),
        lambda: store.reveal("mine", wrong),
        lambda: store.signer("other", wrong),
        lambda: store.add_hex("mine", SECRET, wrong),
        lambda: store.add_hex("b", SECRET + "00", wrong),
        lambda: store.add_document("b", store.document("mine"), wrong),
        lambda: store.add_document("mine", store.document("mine"), PASSPHRASE),
    ):
        with pytest.raises(SignerError) as caught:
            attempt()
        shown = frames_of(caught.value)
        assert len(shown) > 100
        for secret in (SECRET, SECRET.upper(), wrong, PASSPHRASE, repr(bytes.fromhex(SECRET))[2:-1]):
            assert secret not in shown
    assert SECRET not in repr(store) + repr(store.signer("mine", PASSPHRASE)) + repr(store.entries())


# The commands.


def cheap(user: User, name: str, *, passphrase: str = PASSPHRASE, secret: str = SECRET) -> None:
    """Store a key whose passphrase is checked quickly."""
    Keystore(user.home / "keys").add_hex(name, secret, passphrase)


def test_a_new_key_is_made_with_a_passphrase_that_is_typed_twice(user: User) -> None:
    keys = {"New passphrase: ": "a good one\n", "The same again: ": "a good one\n"}
    done = user.on_terminal("key", "new", keys=keys)
    assert done.code == 0, done.screen
    name, address = done.stdout.decode().split()
    assert name == "default"
    assert "a good one" not in done.screen
    assert Keystore(user.home / "keys").signer("default", "a good one").address == address
    keys["The same again: "] = "another one\n"
    differs = user.on_terminal("key", "new", "second", keys=keys)
    assert differs.code == 2
    assert "differ" in differs.screen
    assert user.call("key", "list").stdout.decode().split() == ["default", address]
    assert user.call("key", "address").stdout.decode().strip() == address


def test_a_key_is_imported_from_a_file_a_descriptor_or_standard_input_and_never_from_the_command_line(
    user: User,
) -> None:
    user.with_env(FARTHING_PASSPHRASE=PASSPHRASE)
    for arguments in (("key", "import", "a", SECRET), ("key", "import", "0x" + SECRET, "-")):
        done = user.call(*arguments, stdin=SECRET.encode())
        assert done.code == 2
        assert SECRET not in done.stderr + done.stdout.decode()
    assert user.run("key", "import", "a", "-", stdin=SECRET.encode()).stdout.decode().split() == ["a", ADDRESS]
    read, write = os.pipe()
    os.write(write, SECRET.encode())
    os.close(write)
    done = user.call("key", "import", "b", "--key-fd", str(read), "--json")
    os.close(read)
    assert done.json == {"name": "b", "address": ADDRESS}
    (user.folder / "wallet.json").write_bytes(Keystore(user.home / "keys").document("a"))
    assert user.call("key", "import", "c", "wallet.json").code == 0
    assert user.run("key", "import", "d", "-", stdin=b"not a key").code == 2
    assert [each.name for each in Keystore(user.home / "keys").entries()] == ["a", "b", "c"]


def test_B7_a_key_is_exported_only_after_a_warning_and_a_yes(user: User) -> None:
    cheap(user, "a")
    done = user.with_env(FARTHING_PASSPHRASE=PASSPHRASE).call("key", "export", "a")
    assert (done.code, done.stdout) == (3, b"")
    assert "can take all" in done.stderr
    user.with_env(FARTHING_PASSPHRASE=None)
    keys = {"Show it? [y/N]": "y\n", f"Passphrase of the key a ({ADDRESS}): ": PASSPHRASE + "\n"}
    assert user.on_terminal("key", "export", "a", keys=keys).stdout.decode().strip() == "0x" + SECRET
    encrypted = user.call("key", "export", "a", "--encrypted")
    assert decode_keyfile_json(json.loads(encrypted.stdout), PASSPHRASE.encode()).hex() == SECRET


# Which key pays.


def test_each_source_of_a_key_pays(user: User) -> None:
    secret = user.wallet.key
    cheap(user, "shopping", secret=secret)
    (user.folder / "key.txt").write_text(secret)
    (user.folder / "key.txt").chmod(0o600)
    user.with_env(FARTHING_KEY=None)
    buying = ("get", user.url("/report"), "--yes", "--json")
    from_file = user.call(*buying, "--key-file", "key.txt")
    assert (from_file.code, from_file.json["payer"]) == (0, user.wallet.address)
    for what, options in ((secret, "--key-fd"), (PASSPHRASE + "\n", "--passphrase-fd")):
        read, write = os.pipe()
        os.write(write, what.encode())
        os.close(write)
        done = user.call(*buying, options, str(read))
        os.close(read)
        assert (done.code, done.json["payer"]) == (0, user.wallet.address), done.stderr
    keys = {f"Passphrase of the key shopping ({user.wallet.address}): ": PASSPHRASE + "\n"}
    typed = user.on_terminal("get", user.url("/report"), "--yes", "--key", "shopping", keys=keys)
    assert typed.code == 0, typed.screen
    assert PASSPHRASE not in typed.screen
    assert user.spent == 40_000


def test_a_wrong_or_missing_key_pays_nothing_and_shows_nothing(user: User) -> None:
    (user.folder / "open.txt").write_text(user.wallet.key)
    (user.folder / "open.txt").chmod(0o644)
    buying = ("get", user.url("/report"), "--yes")
    for options in (
        ("--key", "nobody"),
        ("--key-file", "open.txt"),
        ("--key-fd", "99"),
        ("--key", "a", "--key-file", "b"),
        ("--from", ADDRESS),
        ("--signer", "http://signer.example/"),
    ):
        done = user.call(*buying, *options)
        assert done.code == 2, (options, done)
        assert "Traceback" not in done.stderr
        assert user.wallet.key[2:] not in done.stderr
    done = user.with_env(FARTHING_KEY="0x" + SECRET + "5").call(*buying)
    assert done.code == 2
    assert SECRET not in done.stderr
    none = user.with_env(FARTHING_KEY=None).call(*buying)
    assert (none.code, "farthing key new" in none.stderr) == (2, True)
    assert user.spent == 0


# The remote signer.


class SigningService(ThreadingHTTPServer):
    """A wallet's JSON-RPC on loopback, which signs with eth-account, and misbehaves on request."""

    daemon_threads = True

    def __init__(self, key: str) -> None:
        self.account = Account.from_key(key)
        self.accounts = [self.account.address]
        self.asked: list[tuple[str, str | None]] = []
        self.wants_text = False
        self.answer: Any = None
        super().__init__(("127.0.0.1", 0), SigningHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1/s3cret"

    def reply(self, method: str, params: list[Any]) -> dict[str, Any]:
        if self.answer is not None:
            return dict(self.answer)
        if method == "eth_accounts":
            return {"result": self.accounts}
        if self.wants_text and not isinstance(params[1], str):
            return {"error": {"code": -32602, "message": "text, please"}}
        typed = json.loads(params[1]) if isinstance(params[1], str) else params[1]
        signed = self.account.sign_typed_data(full_message=typed)
        return {"result": "0x" + bytes(signed.signature).hex()}


class SigningHandler(BaseHTTPRequestHandler):
    server: SigningService

    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002

    def do_POST(self) -> None:
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((call["method"], self.headers.get("Authorization")))
        body = json.dumps({"jsonrpc": "2.0", "id": call["id"]} | self.server.reply(call["method"], call["params"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


@pytest.fixture
def service() -> Iterator[SigningService]:
    server = SigningService("0x" + SECRET)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("wants_text", [False, True])
def test_a_remote_signer_signs_what_a_key_here_would(service: SigningService, *, wants_text: bool) -> None:
    service.wants_text = wants_text
    signer = RemoteSigner(service.url)
    assert signer.address == ADDRESS
    assert signer.sign_typed_data(message()) == LocalSigner.from_hex(SECRET).sign_typed_data(message())
    signer.close()


def test_B7_a_remote_signer_is_believed_only_where_its_signature_recovers(service: SigningService) -> None:
    signer = RemoteSigner(service.url, address=ADDRESS)
    another = LocalSigner(hashlib.sha256(b"another").digest())
    answers: tuple[dict[str, Any], ...] = (
        {"result": "0x" + another.sign_typed_data(message()).hex()},
        {"result": "0x00"},
        {"result": "yes"},
        {"result": {}},
        {"error": {"code": 4001, "message": "the user said no\x1b"}},
        {},
    )
    for answer in answers:
        service.answer = answer
        with pytest.raises(SignerError) as caught:
            signer.sign_typed_data(message())
        assert "s3cret" not in str(caught.value)
        assert "\x1b" not in str(caught.value)
    assert "s3cret" not in repr(signer)
    signer.close()


def test_a_remote_signer_is_reached_safely_or_not_at_all(service: SigningService) -> None:
    for url in ("http://signer.example", "ftp://127.0.0.1", "https://user:pass@signer.example"):
        with pytest.raises(ConfigError):
            RemoteSigner(url, address=ADDRESS)
    service.accounts = []
    with pytest.raises(SignerError, match="0 accounts"):
        RemoteSigner(service.url)
    gone = RemoteSigner("http://127.0.0.1:1/s3cret", address=ADDRESS)
    with pytest.raises(SignerError) as caught:
        gone.sign_typed_data(message())
    assert "s3cret" not in str(caught.value)


def test_a_remote_signer_pays(user: User) -> None:
    server = SigningService(user.wallet.key)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        user.with_env(FARTHING_KEY=None, FARTHING_SIGNER_TOKEN="token")
        done = user.call("get", user.url("/report"), "--yes", "--json", "--signer", server.url)
        assert (done.code, done.json["payer"]) == (0, user.wallet.address), done.stderr
        assert server.asked == [("eth_accounts", "Bearer token"), ("eth_signTypedData_v4", "Bearer token")]
        server.answer = {"error": {"code": 4001, "message": "rejected"}}
        refused = user.call("get", user.url("/report"), "--yes", "--signer", server.url, "--from", user.wallet.address)
        assert refused.code == 2
        assert "s3cret" not in refused.stderr
        assert user.spent == 10_000
    finally:
        server.shutdown()
        server.server_close()
