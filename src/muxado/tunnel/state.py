"""What a server knows of its clients, and a client of its servers, in a folder each.

The server's: ``server.pem`` (key and certificate), and ``clients.json`` with the identities, their
rights and the invitations that are open. Only hashes of tokens and keys are kept. The client's:
``servers.json``, with its keys.

Each entry of a server's state has a stamp, and one that was removed leaves a stamp behind, so that
the servers of a fleet can tell each other what has changed (`ServerState.notes` and `merge`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

from ..cluster import Note
from ..cluster.errors import Denied
from ..cluster.names import check_name, is_name
from ..errors import UsageError
from .files import locked, make_folder, read_json, write_file, write_json
from .invitations import Invitation, hash_secret, new_secret
from .pins import make_certificate, pin_of
from .rules import DEFAULT_RULES, LIMITS, Rights

__all__ = ["INVITATION_LIFETIME", "ClientState", "Known", "ServerState"]

INVITATION_LIFETIME = 900.0  # seconds
SPENT_KEPT = 86_400.0  # seconds that an invitation is remembered for, to say that it was used
GONE_KEPT = 400 * 86_400.0  # seconds for which it is known that something was removed

KINDS = {"client": "clients", "invitation": "invitations"}  # in the keys of notes, and in the file


class ServerState:
    """The state of a server, which several processes may share.

    Attributes:
        folder: where it is.
    """

    def __init__(self, folder: Path) -> None:
        """Open the state, and make it if it is missing."""
        self.folder: Path = make_folder(folder)
        self._path = folder / "clients.json"
        with locked(folder):
            if not self.key_path.exists():
                write_file(self.key_path, make_certificate())

    @property
    def key_path(self) -> Path:
        """The file with the server's key and certificate."""
        return self.folder / "server.pem"

    @property
    def pin(self) -> str:
        """The pin of the server's key."""
        text = self.key_path.read_bytes()
        return pin_of(text[text.index(b"-----BEGIN CERTIFICATE") :])

    def is_new(self) -> bool:
        """Return whether no client was invited yet."""
        return not self._path.exists()

    def stamp(self) -> tuple[int, int]:
        """Return what changes whenever an identity or its rights do."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_mtime_ns, found.st_ino

    def invite(
        self,
        name: str,
        rights: Rights | tuple[str, ...] = DEFAULT_RULES,
        lifetime: float = INVITATION_LIFETIME,
    ) -> str:
        """Make an invitation for a client, new or known; return its token.

        Args:
            name: what the client is to be called.
            rights: what it may do, or the rules of that.
            lifetime: seconds in which the token can be used.

        Raises:
            UsageError: it is no name, or a rule is none.
        """
        check_name(name)
        entry = _pack(rights) | {"name": name, "until": time() + lifetime}
        token = new_secret()
        with locked(self.folder):
            state = self._read()
            self._put(state, "invitation", hash_secret(token), entry)
            self._write(state)
        return token

    def redeem(self, token: str, key: str) -> str:
        """Exchange a token for the identity of a client's new key; return its name.

        The same client may do so again, whose first answer was lost.

        Raises:
            Denied: the token is unknown, used, or too old.
        """
        with locked(self.folder):
            state = self._read()
            number = hash_secret(token)
            found = state["invitations"].get(number)
            if found is None:
                raise Denied("the invitation is unknown here: ask for a new one", 401)
            name: str = found["name"]
            if "used_by" in found:
                if found["used_by"] == hash_secret(key):
                    return name
                raise used(name)
            if found["until"] < time():
                raise Denied(f"the invitation for {name} is too old: ask for a new one", 401)
            client = {"key": hash_secret(key), "rules": found["rules"]}
            client |= {"limits": found["limits"]} if "limits" in found else {}
            self._put(state, "invitation", number, found | {"used_by": hash_secret(key)})
            self._put(state, "client", name, client)
            self._write(state)
        return name

    def identify(self, key: str) -> str:
        """Return whose key it is.

        Raises:
            Denied: it is unknown, or was revoked.
        """
        wanted = hash_secret(key)
        for name, client in self._read()["clients"].items():
            if client["key"] == wanted:
                return str(name)
        raise Denied("the key is unknown here, or was revoked: ask for a new invitation", 401)

    def clients(self) -> dict[str, tuple[str, Rights]]:
        """Return the hashes of keys and the rights by the clients' names."""
        clients = self._read()["clients"]
        return {name: (each["key"], _rights_of(each)) for name, each in clients.items()}

    def invited(self) -> list[tuple[str, float]]:
        """Return whose invitations can be used now, and until when, in seconds since the epoch."""
        open_now = [each for each in self._read()["invitations"].values() if "used_by" not in each]
        now = time()
        return sorted((each["name"], each["until"]) for each in open_now if each["until"] > now)

    def set_rules(self, name: str, rights: Rights | tuple[str, ...]) -> None:
        """Change what a client may do. Running servers end what it does against that.

        Raises:
            UsageError: there is no such client, or a rule is none.
        """
        entry = _pack(rights)
        with locked(self.folder):
            state = self._read()
            if name not in state["clients"]:
                raise UsageError(f"no client {name!r:.80} is known here")
            key = {"key": state["clients"][name]["key"]}
            self._put(state, "client", name, key | entry)
            self._write(state)

    def revoke(self, name: str) -> bool:
        """Forget a client, its key, and invitations for it; return whether there was one."""
        with locked(self.folder):
            state = self._read()
            invited = [key for key, each in state["invitations"].items() if each["name"] == name]
            known = name in state["clients"]
            if known:
                self._remove(state, "client", name)
            for key in invited:
                self._remove(state, "invitation", key)
            self._write(state)
        return known or bool(invited)

    # What the servers of a fleet tell each other

    def notes(self) -> dict[str, Note]:
        """Return all that is known, for other servers: hashes, names and rights."""
        state = self._read()
        notes = {}
        for kind, place in KINDS.items():
            for key, each in state[place].items():
                text = {name: value for name, value in each.items() if name != "changed"}
                until = int(each["until"] + SPENT_KEPT) if kind == "invitation" else 0
                packed = json.dumps(text, sort_keys=True, separators=(",", ":"))
                notes[f"{kind}/{key}"] = Note(each.get("changed", 0), until, packed)
        for key, stamp in state["gone"].items():
            notes[key] = Note(stamp, int(stamp / 1000 + GONE_KEPT), "")
        return notes

    def merge(self, notes: Mapping[str, Note]) -> None:
        """Take over what other servers know that is newer. What isn't a note is passed over."""
        with locked(self.folder):
            mine = self.notes()
            newer = {
                key: note for key, note in notes.items() if key not in mine or note > mine[key]
            }
            state = self._read()
            taken = [_take(state, *key.partition("/")[::2], note) for key, note in newer.items()]
            if any(taken):
                self._write(state)

    def _put(self, state: dict[str, Any], kind: str, key: str, entry: dict[str, Any]) -> None:
        """Store an entry, newer than what is there."""
        before = state[KINDS[kind]].get(key, {}).get("changed", 0)
        before = max(before, state["gone"].pop(f"{kind}/{key}", 0))
        state[KINDS[kind]][key] = entry | {"changed": max(before + 1, int(time() * 1000))}

    def _remove(self, state: dict[str, Any], kind: str, key: str) -> None:
        """Remove an entry, and leave a stamp."""
        before = state[KINDS[kind]].pop(key).get("changed", 0)
        state["gone"][f"{kind}/{key}"] = max(before + 1, int(time() * 1000))

    def _read(self) -> dict[str, Any]:
        state = read_json(self._path)
        return {place: state.get(place, {}) for place in (*KINDS.values(), "gone")}

    def _write(self, state: dict[str, Any]) -> None:
        """Write all but what is too old to matter."""
        now = time()
        state["invitations"] = {
            key: each
            for key, each in state["invitations"].items()
            if each["until"] + SPENT_KEPT > now
        }
        state["gone"] = {
            key: stamp for key, stamp in state["gone"].items() if stamp / 1000 + GONE_KEPT > now
        }
        write_json(self._path, state)


def used(name: str) -> Denied:
    """Return the error of a key that is too late to use an invitation."""
    return Denied(
        f"the invitation for {name} was used already: if that was not you, have {name} revoked; ask"
        " for a new one",
        401,
    )


def _pack(rights: Rights | tuple[str, ...]) -> dict[str, Any]:
    """Return rights as an entry has them."""
    rights = rights if isinstance(rights, Rights) else Rights(rights)
    limits = {name: getattr(rights, name) for name in LIMITS if getattr(rights, name)}
    return {"rules": rights.lines()} | ({"limits": limits} if limits else {})


def _rights_of(entry: Mapping[str, Any]) -> Rights:
    return Rights(entry["rules"], **entry.get("limits", {}))


def _take(state: dict[str, Any], kind: str, key: str, note: Note) -> bool:
    """Store what a note says; return whether it says anything."""
    place = KINDS.get(kind)
    if place is None:
        return False
    if not note.text:
        state[place].pop(key, None)
        state["gone"][f"{kind}/{key}"] = note.stamp
        return True
    try:
        entry = json.loads(note.text)
        _rights_of(entry)
        needed = {"key"} if kind == "client" else {"name", "until"}
        good = needed <= entry.keys() and is_name(key if kind == "client" else entry["name"])
    except (ValueError, TypeError, KeyError, UsageError):
        return False
    if good:
        state["gone"].pop(f"{kind}/{key}", None)
        state[place][key] = entry | {"changed": note.stamp}
    return bool(good)


@dataclass(frozen=True, repr=False)
class Known:
    """A server that a client knows. Its `repr` does not show the key.

    Attributes:
        name: what the client calls it.
        invitation: where it is, and its pins; with a token until that was redeemed.
        key: the client's own key there.
    """

    name: str
    invitation: Invitation
    key: str

    def __repr__(self) -> str:
        return f"<Known {self.name} {self.invitation!r}>"


class ClientState:
    """The servers that a client knows."""

    def __init__(self, folder: Path) -> None:
        """Open the state, and make its folder if it is missing."""
        self.folder: Path = make_folder(folder)
        self._path = folder / "servers.json"

    def servers(self) -> dict[str, Known]:
        """Return the known servers by name."""
        return {
            name: Known(name, Invitation.parse(each["server"]), each["key"])
            for name, each in read_json(self._path).items()
        }

    def accept(self, invitation: Invitation) -> Known:
        """Take an invitation, with a new key, in place of what is known of that server.

        One that was redeemed here before gives what is known since.

        Raises:
            UsageError: it has no token.
        """
        if not invitation.token:
            raise UsageError("the invitation has no token: copy all of the line")
        with locked(self.folder):
            servers = read_json(self._path)
            text = str(invitation)
            for name, each in servers.items():
                if each["server"] == text:
                    return Known(name, invitation, each["key"])
                if each.get("spent") == hash_secret(invitation.token):
                    return Known(name, Invitation.parse(each["server"]), each["key"])
            host, port = invitation.places[0]
            name = f"{host}:{port}"
            known = Known(name, invitation, new_secret())
            before = servers.get(name, {})
            if "before" in before:  # an invitation that was never answered
                before = before["before"]
            servers[name] = {"server": text, "key": known.key, "before": before}
            write_json(self._path, servers)
        return known

    def rejected(self, known: Known) -> None:
        """Take note that the server does not want the invitation: what was known before holds."""
        with locked(self.folder):
            servers = read_json(self._path)
            if servers.get(known.name, {}).get("key") != known.key:
                return
            before = servers.pop(known.name).get("before")
            if before:
                servers[known.name] = before
            write_json(self._path, servers)

    def redeemed(self, known: Known) -> Known:
        """Take note that the server has the key now, and the token is spent."""
        invitation = known.invitation.spent()
        with locked(self.folder):
            servers = read_json(self._path)
            spent = hash_secret(known.invitation.token)
            servers[known.name] = {"server": str(invitation), "key": known.key, "spent": spent}
            write_json(self._path, servers)
        return Known(known.name, invitation, known.key)

    def find(self, name: str | None) -> Known:
        """Return a known server; without a name the only one.

        Raises:
            UsageError: there is none, or there are several.
        """
        servers = self.servers()
        if name is not None:
            if name in servers:
                return servers[name]
            told = ", ".join(sorted(servers)) or "none yet"
            raise UsageError(f"no server {name!r:.80} is known here; known: {told}")
        if not servers:
            raise UsageError("no server is known here: give an invitation with --to -")
        if len(servers) > 1:
            raise UsageError(f"say which server with --to: {', '.join(sorted(servers))}")
        return next(iter(servers.values()))
