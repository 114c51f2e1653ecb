"""With which login a server was rented, so that an absence in another account's list is not taken for its end.

A vendor lists what the account of the login has. With the login of another project nothing of a sweep is in the list,
however alive it is. So the book keeps a *mark* of the login, made when the server is asked for: the same account has
the same mark, and nobody can tell the login, or the account, from it without the key in ``STATE/logins.key``. Where a
vendor names no account (Hetzner) the mark is of the token, and changes with it; then what the list shows may say that
both are of one account, see :func:`benchctl.clouds.verdicts.known_logins`.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from benchctl.clouds import keys
from benchctl.errors import BenchctlError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchctl.clouds.cloud import Client, Cloud
    from benchctl.home import Home

KEY = "logins.key"

MEND = "if this one is of the same account or project (a token was changed): benchctl reap --login-changed."


def mark(home: Home, cloud: Cloud, environment: Mapping[str, str], client: Client) -> str:
    """The mark of a login; empty where nothing tells its account.

    Raises:
        CloudError: only the API knows the account, and it refuses or can't be reached.
        BenchctlError: the key can't be read or written.
    """
    account = cloud.account(environment, client)
    if not account:
        return ""
    path = home.state / KEY
    try:
        key = keys.ensure_secret(path)
    except OSError as error:
        raise BenchctlError(
            f"{path} can't be used: {error.strerror}.", "Free some space there, or choose another --state-dir."
        ) from error
    return hmac.new(key.encode(), f"{cloud.vendor_id}/{account}".encode(), hashlib.sha256).hexdigest()[:32]
