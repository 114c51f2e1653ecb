"""What a statement is, by its words: which kind, how many, and which functions it calls. Pure.

This is a courtesy on SQLite, where the library itself is asked about every step of a statement; its sentences are
better. On PostgreSQL it is one of the guards, so where this reading could differ from the server's (escape strings,
Unicode escapes) the statement is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

READS = {
    "sqlite": ("SELECT", "WITH", "VALUES", "EXPLAIN", "PRAGMA"),
    "postgresql": ("SELECT", "WITH", "VALUES", "TABLE", "EXPLAIN", "SHOW"),
}
"""What a statement that reads begins with."""

REFUSED_FUNCTIONS = re.compile(
    r"""set_config                                                  # would undo the limits
    | (query|table|cursor|schema|database)_to_xml\w* | ts_stat | ts_rewrite | xpath_table | crosstab\w* | connectby
                                                                    # run SQL that stands in a text
    | dblink\w* | postgres_fdw\w*                                   # other databases
    | pg_read_\w+ | pg_ls_\w+ | pg_stat_file | pg_file_\w+ | pg_current_logfile | pg_logdir_ls | pg_hba_\w+
                                                                    # the server's files
    | lo_\w+ | loread | lowrite | lo                                # large objects, and files by way of them
    | pg_(terminate|cancel)_backend | pg_\w*advisory\w* | pg_notify | pg_reload_conf | pg_rotate_logfile\w*
    | pg_switch_\w+ | pg_create_\w+ | pg_drop_\w+ | pg_copy_\w+ | pg_promote | pg_\w*backup\w* | pg_\w*replay_\w+
    | pg_logical_\w+ | pg_replication_\w+ | pg_export_snapshot | pg_import_\w+ | pg_stat_reset\w* | pg_log_\w+
    | pg_extension_config_dump | pg_nextoid | pg_stop_making_pinned_objects | binary_upgrade_\w+ | pg_sync_\w+
    | nextval | setval | txid_current | pg_current_xact_id | pg_clear_\w+ | pg_restore_\w+
                                                                    # what they do outlives the transaction
    """,
    re.VERBOSE,
)
"""PostgreSQL's functions that do more than compute, where a role or a setting might let them."""

REFUSED_TABLES = frozenset(
    {
        "pg_authid", "pg_shadow", "pg_user_mapping", "pg_user_mappings", "pg_subscription", "pg_largeobject",
        "pg_hba_file_rules", "pg_ident_file_mappings", "pg_file_settings",
    }
)  # fmt: skip
"""PostgreSQL's tables of passwords, and of the server's files."""

_TOKEN = re.compile(
    r"""(?P<space>[\s\ufeff]+ | --[^\n]*)
    | (?P<comment>/\*)
    | (?P<escape>[eE]' | [uU]&['"])
    | (?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?\$)
    | (?P<string>'(?:[^']|'')*(?:'|\Z))
    | (?P<quoted>"(?:[^"]|"")*(?:"|\Z) | `(?:[^`]|``)*(?:`|\Z) | \[[^\]]*(?:\]|\Z))
    | (?P<word>[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)
    | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Statement:
    """One statement, as far as its words tell.

    Attributes:
        keyword: what it begins with, in capitals; empty for no statement at all.
        refusal: why it is refused, one sentence; empty when it is not.
        mend: what to do about that.
    """

    keyword: str
    refusal: str = ""
    mend: str = ""

    @classmethod
    def parse(cls, sql: str, dialect: str) -> Statement:
        """Read the text as ``sqlite`` or ``postgresql`` would."""
        postgres = dialect == "postgresql"
        tokens = list(_tokens(sql, postgres))
        while tokens and tokens[0][1] in ("(", ";"):
            tokens.pop(0)
        keyword = tokens[0][1].upper() if tokens else ""
        reads = READS[dialect]
        count = _count(tokens)
        if keyword and keyword not in reads:
            refusal = f"'benchctl sql' reads and does nothing else: {_short(keyword)} is refused."
            return cls(keyword, refusal, f"Begin with {', '.join(reads[:-1])} or {reads[-1]}.")
        if count > 1:
            return cls(keyword, f"These are {count} statements.", "Give one at a time.")
        return cls(keyword, *(_postgres_refusal(tokens) if postgres else ()))


def _tokens(sql: str, postgres: bool) -> Iterator[tuple[str, str]]:
    """Kind and text of everything but white space and comments; a quoted name comes without its quotes."""
    at = 0
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        assert match is not None  # noqa: S101 - the last alternative matches any character
        kind, text = str(match.lastgroup), match.group()
        at = match.end()
        if kind == "space":
            continue
        if kind == "comment":
            at = _end_of_comment(sql, at, nested=postgres)
            continue
        if not postgres and kind in ("escape", "dollar"):
            kind, text, at = "word", text[0], match.start() + 1
        elif kind == "dollar":
            end = sql.find(text, at)
            kind, at = "string", len(sql) if end < 0 else end + len(text)
        elif kind == "quoted" and postgres and text[0] != '"':
            kind, text, at = "other", text[0], match.start() + 1
        elif kind == "quoted":
            text = text[1:-1].replace('""', '"')
        yield kind, text


def _end_of_comment(sql: str, at: int, nested: bool) -> int:
    depth = 1
    for match in re.compile(r"/\*|\*/").finditer(sql, at):
        if match.group() == "*/":
            depth -= 1
        elif nested:
            depth += 1
        if depth == 0:
            return match.end()
    return len(sql)


def _count(tokens: list[tuple[str, str]]) -> int:
    """How many statements there are: what stands between semicolons."""
    count, empty = 0, True
    for kind, text in tokens:
        if kind == "other" and text == ";":
            empty = True
        elif empty:
            count, empty = count + 1, False
    return count


def _postgres_refusal(tokens: list[tuple[str, str]]) -> tuple[str, str] | tuple[()]:
    for place, (kind, text) in enumerate(tokens):
        if kind == "escape":
            return f"Strings and names with escapes ({text}...) are refused.", "Write the characters themselves."
        if kind not in ("word", "quoted"):
            continue
        name = text.lower()
        after = tokens[place + 1][1] if place + 1 < len(tokens) else ""
        if name in REFUSED_TABLES or (after == "(" and REFUSED_FUNCTIONS.fullmatch(name)):
            what = f"{name}()" if after == "(" else name
            return f"'benchctl sql' only reads the tables: {what} is refused.", "Ask with SELECT."
    return ()


def _short(word: str) -> str:
    return word if len(word) <= 20 else f"{word[:20]}..."
