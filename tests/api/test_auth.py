"""Keys: who asks, by the digests in a file that never holds a key."""

import subprocess
import sys
from pathlib import Path

import pytest

from api.auth import LOCAL, Keys, make_key
from nelbo.errors import InvalidInput, NotAuthenticated, Unavailable


def keys_file(folder: Path, *lines: str) -> Path:
    path = folder / "keys"
    path.write_text("# id owner digest\n\n" + "\n".join(lines) + "\n")
    return path


def test_everyone_is_local_without_a_keys_file() -> None:
    assert Keys(None).owner(None) == LOCAL
    assert Keys(None).owner("Bearer whatever") == LOCAL


def test_a_key_names_its_owner(tmp_path: Path) -> None:
    (ada, ada_line), (bob, bob_line) = make_key("ada"), make_key("bob")
    keys = Keys(keys_file(tmp_path, ada_line, f"{bob_line}  # his second"))
    assert keys.owner(f"Bearer {ada}") == "ada"
    assert keys.owner(f"bearer {bob}") == "bob"


def test_the_file_holds_no_key(tmp_path: Path) -> None:
    key, line = make_key("ada")
    assert key not in line
    assert key.rpartition("_")[2] not in line


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer nb_short", f"Bearer nb_{'0' * 16}_{'A' * 43}", "Bearer ключ"],
)
def test_what_is_not_a_known_key_is_refused(tmp_path: Path, authorization: str | None) -> None:
    keys = Keys(keys_file(tmp_path, make_key("ada")[1]))
    with pytest.raises(NotAuthenticated, match="API key"):
        keys.owner(authorization)


def test_a_known_id_with_another_secret_is_refused(tmp_path: Path) -> None:
    key, line = make_key("ada")
    keys = Keys(keys_file(tmp_path, line))
    other = key[:-1] + ("A" if key[-1] != "A" else "B")
    with pytest.raises(NotAuthenticated):
        keys.owner(f"Bearer {other}")


def test_a_key_that_is_added_or_taken_away_counts_at_once(tmp_path: Path) -> None:
    (ada, ada_line), (bob, bob_line) = make_key("ada"), make_key("bob")
    path = keys_file(tmp_path, ada_line)
    keys = Keys(path)
    keys_file(tmp_path, bob_line, "# ada left")
    assert keys.owner(f"Bearer {bob}") == "bob"
    with pytest.raises(NotAuthenticated):
        keys.owner(f"Bearer {ada}")


def test_a_keys_file_that_is_missing_or_broken_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be read"):
        Keys(tmp_path / "missing")
    with pytest.raises(Unavailable, match="line 3 is not"):
        Keys(keys_file(tmp_path, "ada nb_secret"))


def test_a_byte_order_mark_in_the_keys_file_is_skipped_and_other_encodings_are_named(tmp_path: Path) -> None:
    key, line = make_key("ada")
    path = tmp_path / "keys"
    path.write_text(f"{line}\n", encoding="utf-8-sig")
    assert Keys(path).owner(f"Bearer {key}") == "ada"
    path.write_text(f"{line}\n", encoding="utf-16")
    with pytest.raises(Unavailable, match=r"the keys file .*keys is UTF-16 text; save it as UTF-8"):
        Keys(path)


def test_an_owner_needs_a_plain_name() -> None:
    with pytest.raises(InvalidInput, match="'ada lovelace' is not an owner"):
        make_key("ada lovelace")


def test_the_command_prints_the_line_and_the_key_apart(tmp_path: Path) -> None:
    made = subprocess.run([sys.executable, "-m", "api.auth", "ada"], capture_output=True, text=True, check=True)
    key = made.stderr.strip().rpartition(" ")[2]
    assert Keys(keys_file(tmp_path, made.stdout.strip())).owner(f"Bearer {key}") == "ada"
