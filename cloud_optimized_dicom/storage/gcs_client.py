"""How a `google.cloud.storage.Client` is made, and made again in another process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from requests.adapters import HTTPAdapter

from cloud_optimized_dicom.ranges import PARALLEL_READS


@dataclass(frozen=True, slots=True)
class ClientRecipe:
    """What of a client crosses to another process: never its credentials.

    Parameters
    ----------
    project, api_endpoint
        None: as the environment says.
    anonymous
        Without credentials, as emulators and public buckets are used.  Otherwise the new client uses the default
        credentials of the process that makes it.
    """

    project: str | None = None
    api_endpoint: str | None = None
    anonymous: bool = False

    @classmethod
    def of(cls, client: Any) -> ClientRecipe:
        """Return the recipe of a client that was made elsewhere."""
        connection = client._connection  # noqa: SLF001 - the library has no public way to ask
        endpoint = None if connection.API_BASE_URL == connection.DEFAULT_API_ENDPOINT else connection.API_BASE_URL
        anonymous = isinstance(client._credentials, AnonymousCredentials)  # noqa: SLF001 - as above
        return cls(client.project, endpoint, anonymous)

    def make(self) -> Any:
        """Return a new client; with ``STORAGE_EMULATOR_HOST`` set, one for that server and without credentials."""
        anonymous = self.anonymous or bool(os.environ.get("STORAGE_EMULATOR_HOST"))
        client = storage.Client(
            # Without credentials there is no project to be found, and none is needed; the library insists on a name.
            project=self.project or ("test" if anonymous else None),
            credentials=AnonymousCredentials() if anonymous else None,  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": self.api_endpoint} if self.api_endpoint else None,
        )
        keep_connections(client)
        return client


def keep_connections(client: Any) -> None:
    """Let a client keep as many connections as requests run at a time.

    Notes
    -----
    Its session would keep ten, and make those beyond anew for every request: three round trips more, each time.  A
    session whose way to connect is not the usual one (mutual TLS, an adapter of the caller's) stays as it is.
    """
    session = client._http  # noqa: SLF001 - the library has no public way to ask
    for prefix in ("https://", "http://"):
        adapter: Any = session.get_adapter(prefix)
        kept: int = getattr(adapter, "_pool_maxsize", PARALLEL_READS)
        if type(adapter) is HTTPAdapter and kept < PARALLEL_READS:
            session.mount(prefix, HTTPAdapter(pool_maxsize=PARALLEL_READS, max_retries=adapter.max_retries))
