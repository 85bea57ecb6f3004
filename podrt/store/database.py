"""Rows of objects in SQLite: the only file that speaks SQL.

WAL with synchronous=NORMAL: a commit is one write(2) to the log, so what was answered survives a ``kill -9`` of the
daemon (the page cache has it) at about 0.1 ms; after a power cut the last moments may be missing, but the file is
whole. The highest revision is the larger of the highest row's and the ``revision`` kept at each delete, so it never
goes back.

A row that can't be read is moved to ``broken`` by the caller, never dropped: start-up goes on without it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

from podrt.errors import UnavailableError

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE objects (
  resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID;
CREATE TABLE counter (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL);
CREATE TABLE broken (
  moved_at REAL NOT NULL, reason TEXT NOT NULL, resource TEXT, namespace TEXT, name TEXT, revision INTEGER, data BLOB);
INSERT INTO counter VALUES (1, 0);
"""


REVISIONS_LOST = 1_000_000
"""Added to the highest revision found in a damaged file, as later ones may have been given and lost."""


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


class Row(NamedTuple):
    resource: str
    namespace: str
    name: str
    revision: int
    data: bytes


class Database:
    """The file of all objects. Raises UnavailableError that names the file if it can't be opened or written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set_aside: Path | None = None
        """Where a damaged file was moved to, if it was one."""
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise UnavailableError(
                    f"{path}: can't open the store: {error}; see that the directory exists"
                ) from error
            self.set_aside = self._move_away()
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        # The daemon is the only writer, on one thread; check_same_thread guards that.
        with contextlib.suppress(OSError):
            # Objects may hold what not everyone should read; SQLite gives its other files the mode of this one.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=5.0)
        # Damaged text must not end the reading of all that follows.
        connection.text_factory = _text
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            elif version != SCHEMA_VERSION:
                raise UnavailableError(
                    f"{self.path}: the store is of version {version}, this podrt reads version {SCHEMA_VERSION}: "
                    "use the podrt that wrote it, or move the file away to start empty"
                )
            connection.execute("SELECT revision FROM counter").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _move_away(self) -> Path:
        target = self.path.with_name(f"{self.path.name}.broken-{time.time_ns()}")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{self.path}{suffix}", f"{target}{suffix}")
        return target

    def revision(self) -> int:
        """The highest revision ever given to a write."""
        (highest,) = self._connection.execute(
            "SELECT max((SELECT revision FROM counter), coalesce((SELECT max(revision) FROM objects), 0))"
        ).fetchone()
        return int(highest)

    def load(self) -> list[Row]:
        """All rows. Of a damaged file what can be read is put into a new one, and the old one moved away."""
        rows: list[Row] = []
        try:
            for row in self._connection.execute("SELECT resource, namespace, name, revision, data FROM objects"):
                rows.append(Row(*row))
        except sqlite3.DatabaseError:
            self._connection.close()
            self.set_aside = self._move_away()
            self._connection = self._open()
            highest = max((row.revision for row in rows), default=0)
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("INSERT INTO objects VALUES (?, ?, ?, ?, ?)", rows)
                self._connection.execute("UPDATE counter SET revision = ?", (highest + REVISIONS_LOST,))
        return rows

    def put(self, row: Row) -> None:
        """Insert or replace a row."""
        try:
            self._connection.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise UnavailableError(f"{self.path}: can't write {row.resource}/{row.name}: {error}") from error

    def delete(self, resource: str, namespace: str, name: str, revision: int) -> None:
        """Remove a row, and remember the revision of its removal."""
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute(
                    "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?", (resource, namespace, name)
                )
                self._connection.execute("UPDATE counter SET revision = ?", (revision,))
        except sqlite3.Error as error:
            raise UnavailableError(f"{self.path}: can't delete {resource}/{name}: {error}") from error

    def move_to_broken(self, row: Row, reason: str) -> None:
        """Take a row that can't be decoded out of the way, keeping its bytes."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("INSERT INTO broken VALUES (?, ?, ?, ?, ?, ?, ?)", (time.time(), reason, *row))
            self._connection.execute("DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?", row[:3])
            self._connection.execute("UPDATE counter SET revision = max(revision, ?)", (row.revision,))

    def broken(self) -> list[tuple[str, Row]]:
        """All rows set aside so far, with the reason of each."""
        found = self._connection.execute("SELECT reason, resource, namespace, name, revision, data FROM broken")
        return [(reason, Row(*rest)) for reason, *rest in found]

    def close(self) -> None:
        self._connection.close()
